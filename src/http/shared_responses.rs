//! Responses that many routes share, declared once for the description of the API.
//!
//! Each type names a set of problems; a route lists the types in its `responses(…)`. None of them has values.

use std::collections::BTreeMap;

use utoipa::openapi::{ContentBuilder, HeaderBuilder, Ref, RefOr, Response, ResponseBuilder, Schema};
use utoipa::{IntoResponses, PartialSchema, ToSchema};

use super::uploads::FileBytes;
use super::views::problem::ProblemView;

type Responses = BTreeMap<String, RefOr<Response>>;

/// The name of a header, the schema of its value, and what it says.
type HeaderOf = (&'static str, fn() -> RefOr<Schema>, &'static str);

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

/// A response with these headers; it has no body yet.
fn response(description: &str, headers: &[HeaderOf]) -> ResponseBuilder {
    let response = ResponseBuilder::new().description(description);
    headers.iter().fold(response, |response, (name, schema, description)| {
        response.header(*name, HeaderBuilder::new().schema(Some(schema())).description(Some(*description)).build())
    })
}

/// Routes that send a file, or the part of it that the client wants.
pub(super) enum SendsFile {}

impl IntoResponses for SendsFile {
    fn responses() -> Responses {
        let bytes = || ContentBuilder::new().schema(Some(FileBytes::schema())).build();
        let digests: [HeaderOf; 2] = [
            ("ETag", String::schema, "The SHA-256 of the file."),
            ("Repr-Digest", String::schema, "The same digest, as RFC 9530 writes it."),
        ];
        let mut responses = problems(&[(416, "The range lies outside the file.")]);
        for (status, response) in [
            ("200", response("The whole file.", &digests).content("application/octet-stream", bytes())),
            ("206", response("The requested part of the file.", &[]).content("application/octet-stream", bytes())),
            ("304", response("The client already has this version.", &[])),
        ] {
            responses.insert(status.to_owned(), response.build().into());
        }
        responses
    }
}

/// Routes about how far the upload of a file has come.
pub(super) enum ShowsUpload {}

impl IntoResponses for ShowsUpload {
    fn responses() -> Responses {
        let complete: [HeaderOf; 2] =
            [("ETag", String::schema, "The SHA-256 of the file."), ("Upload-Complete", String::schema, "Always `?1`.")];
        let unfinished: [HeaderOf; 2] = [
            ("Upload-Offset", u64::schema, "The number of bytes that are stored."),
            ("Upload-Complete", String::schema, "Always `?0`."),
        ];
        let cases = [
            ("200", "The upload is complete.", &complete[..]),
            ("204", "The upload is unfinished.", &unfinished),
            ("401", NO_KEY.1, &[]),
            ("404", "Nothing with this name belongs to the tenant of the key.", &[]),
        ];
        let response = |(status, description, headers): (&str, &str, &[HeaderOf])| {
            (status.to_owned(), response(description, headers).build().into())
        };
        cases.map(response).into()
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
