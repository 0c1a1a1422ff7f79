//! Responses that many routes share, declared once for the description of the API.
//!
//! Each type names a set of problems; a route lists the types in its `responses(…)`. None of them has values.

use std::collections::BTreeMap;

use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoResponses, ToSchema};

use super::views::problem::ProblemView;

type Responses = BTreeMap<String, RefOr<Response>>;

const NO_KEY: (u16, &str) = (401, "No valid key.");

/// Problems by status and description.
fn problems(cases: &[(u16, &str)]) -> Responses {
    let problem = |(status, description): &(u16, &str)| {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(ProblemView::name()))).build();
        let response = ResponseBuilder::new().description(*description).content("application/problem+json", content);
        (status.to_string(), response.build().into())
    };
    cases.iter().map(problem).collect()
}

/// Every route that needs a key.
pub(super) enum NeedsKey {}

impl IntoResponses for NeedsKey {
    fn responses() -> Responses {
        problems(&[NO_KEY])
    }
}

/// Routes about one thing that may be absent.
pub(super) enum Finds {}

impl IntoResponses for Finds {
    fn responses() -> Responses {
        problems(&[NO_KEY, (404, "There is none.")])
    }
}

/// Routes that read parameters from the query.
pub(super) enum ReadsQuery {}

impl IntoResponses for ReadsQuery {
    fn responses() -> Responses {
        problems(&[NO_KEY, (422, "A parameter is wrong.")])
    }
}

/// Routes that write.
pub(super) enum Writes {}

impl IntoResponses for Writes {
    fn responses() -> Responses {
        problems(&[NO_KEY, (403, "The key may not write."), (507, "The disk is full.")])
    }
}

/// Routes whose body is JSON.
pub(super) enum ReadsJson {}

impl IntoResponses for ReadsJson {
    fn responses() -> Responses {
        problems(&[
            (400, "The body is not JSON."),
            (413, "The body is too large."),
            (415, "The body is not announced as JSON."),
            (422, "Faults, each with its pointer."),
        ])
    }
}

/// Routes whose body is a file.
pub(super) enum ReadsFile {}

impl IntoResponses for ReadsFile {
    fn responses() -> Responses {
        problems(&[
            (400, "The headers or the body cannot be read."),
            (408, "The body stopped coming."),
            (413, "Over the limit."),
        ])
    }
}

/// Routes that send a part of a file where the client wants one.
pub(super) enum SendsRange {}

impl IntoResponses for SendsRange {
    fn responses() -> Responses {
        problems(&[(416, "The range is outside.")])
    }
}

/// Routes about what a job has made.
pub(super) enum NeedsSuccess {}

impl IntoResponses for NeedsSuccess {
    fn responses() -> Responses {
        problems(&[NO_KEY, (404, "There is no such job."), (409, "The job has not succeeded (yet).")])
    }
}

/// Routes about the server that need no key.
pub(super) enum OnlyReads {}

impl IntoResponses for OnlyReads {
    fn responses() -> Responses {
        problems(&[(405, "Only GET and HEAD.")])
    }
}
