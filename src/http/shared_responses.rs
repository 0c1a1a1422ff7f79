//! Responses that many routes share, declared once for the description of the API.
//!
//! Each type names a set of problems; a route lists the types in its `responses(…)`. None of them has values.

use std::collections::BTreeMap;

use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoResponses, ToSchema};

use super::views::problem::ProblemView;

type Responses = BTreeMap<String, RefOr<Response>>;

const NO_KEY: (u16, &str) = (401, "The request has no valid key.");

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
        problems(&[NO_KEY, (404, "Nothing with this id or name belongs to the tenant of the key.")])
    }
}

/// Routes that read parameters from the query.
pub(super) enum ReadsQuery {}

impl IntoResponses for ReadsQuery {
    fn responses() -> Responses {
        problems(&[NO_KEY, (422, "A parameter of the query is not valid.")])
    }
}

/// Routes that write.
pub(super) enum Writes {}

impl IntoResponses for Writes {
    fn responses() -> Responses {
        problems(&[NO_KEY, (403, "The key does not allow writing."), (507, "The disk is full.")])
    }
}

/// Routes whose body is JSON.
pub(super) enum ReadsJson {}

impl IntoResponses for ReadsJson {
    fn responses() -> Responses {
        problems(&[
            (400, "The body is not JSON."),
            (413, "The body is too large."),
            (415, "The `Content-Type` is not that of JSON."),
            (422, "The body is not valid. `errors` lists every fault, each with a pointer to its value."),
        ])
    }
}

/// Routes whose body is a file.
pub(super) enum ReadsFile {}

impl IntoResponses for ReadsFile {
    fn responses() -> Responses {
        problems(&[
            (400, "The headers or the body cannot be read."),
            (408, "The client stopped sending the body."),
            (413, "The file is larger than the server allows."),
        ])
    }
}

/// Routes that send a part of a file where the client wants one.
pub(super) enum SendsRange {}

impl IntoResponses for SendsRange {
    fn responses() -> Responses {
        problems(&[(416, "The range lies outside the file.")])
    }
}

/// Routes about what a job has made.
pub(super) enum NeedsSuccess {}

impl IntoResponses for NeedsSuccess {
    fn responses() -> Responses {
        problems(&[
            NO_KEY,
            (404, "No job with this id belongs to the tenant of the key."),
            (409, "The job has not succeeded, or not yet."),
        ])
    }
}

/// Routes about the server that need no key.
pub(super) enum OnlyReads {}

impl IntoResponses for OnlyReads {
    fn responses() -> Responses {
        problems(&[(405, "Only GET and HEAD are allowed.")])
    }
}
