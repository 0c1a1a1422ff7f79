//! What to do where the Hub refuses.

use reqwest::StatusCode;

use super::Repository;
use crate::destinations::Refusal;

/// The word of an answer about a repository that is not there, or that is not shown.
const NO_REPOSITORY: &str = "RepoNotFound";
/// The word of an answer about a branch that is not there.
pub(super) const NO_REVISION: &str = "RevisionNotFound";
const GATED: &str = "GatedRepo";
/// What the Hub says of a token that is none.
const NO_TOKEN: &str = "Invalid credentials";

/// Whether the answer says that there is no such repository, or none that the token may see: the Hub answers alike.
pub(super) fn is_absent(refusal: &Refusal) -> bool {
    let hidden = refusal.status == StatusCode::UNAUTHORIZED && !is_of_token(refusal);
    refusal.is(NO_REPOSITORY) || hidden || refusal.status == StatusCode::NOT_FOUND && refusal.code.is_none()
}

fn is_of_token(refusal: &Refusal) -> bool {
    refusal.message.starts_with(NO_TOKEN)
}

/// What to do, in a sentence.
pub(super) fn advice(refusal: &Refusal, repository: &Repository, endpoint: &str) -> Option<String> {
    let (id, owner) = (repository.id(), &repository.owner);
    let tokens = format!("{endpoint}/settings/tokens");
    if refusal.is(GATED) {
        return Some(format!("{id} is gated: ask for access at {endpoint}/{id}"));
    }
    if refusal.is(NO_REVISION) {
        return Some(format!("{id} has no revision `{}`: name a branch behind the @", repository.revision()));
    }
    if refusal.is(NO_REPOSITORY) {
        return Some(format!("there is no {id}, or the token may not see it: {tokens} shows what it may"));
    }
    Some(match refusal.status {
        StatusCode::UNAUTHORIZED => {
            format!(
                "the token is none of {endpoint}, or no longer: make one that may write at {tokens}, and set HF_TOKEN"
            )
        }
        StatusCode::FORBIDDEN => format!(
            "the token may not do this for {owner}: at {tokens} give it the right to write to {id} (to make it, to all of {owner}'s), and see that \
             its user may write there"
        ),
        StatusCode::PAYMENT_REQUIRED => format!("see the plan and storage of {owner} at {endpoint}/settings/billing"),
        StatusCode::PRECONDITION_FAILED => "somebody else has changed the branch meanwhile: push again".to_owned(),
        StatusCode::PAYLOAD_TOO_LARGE => format!("see what {owner} may store, at {endpoint}/settings/billing"),
        StatusCode::TOO_MANY_REQUESTS => {
            "the Hub takes no more requests for now: push again in some minutes".to_owned()
        }
        status if status.is_server_error() => {
            "the Hub fails for now: push again later, what it has is not sent twice".to_owned()
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_says_what_to_do() {
        let repository: Repository = "org/letters@v2".parse().expect("a name");
        let said = |status: u16, code: Option<&str>, message: &str| {
            let refusal = Refusal {
                status: StatusCode::from_u16(status).expect("a status"),
                code: code.map(str::to_owned),
                message: message.to_owned(),
                url: String::new(),
            };
            (is_absent(&refusal), advice(&refusal, &repository, "https://hub.example").unwrap_or_default())
        };
        for (status, code, message, absent, part) in [
            (401, None, "Invalid credentials in Authorization header", false, "HF_TOKEN"),
            (401, Some("RepoNotFound"), "Repository not found", true, "may not see it"),
            (404, Some("RepoNotFound"), "", true, "there is no org/letters"),
            (404, Some("RevisionNotFound"), "", false, "no revision `v2`"),
            (403, None, "Forbidden", false, "right to write to org/letters"),
            (403, Some("GatedRepo"), "", false, "https://hub.example/org/letters"),
            (402, None, "", false, "billing"),
            (412, None, "", false, "push again"),
            (429, None, "", false, "some minutes"),
            (500, None, "", false, "later"),
        ] {
            let (is_absent, said) = said(status, code, message);
            assert!(is_absent == absent && said.contains(part), "{status} {code:?}: {said}");
        }
        assert_eq!(said(400, None, "no").1, "");
    }
}
