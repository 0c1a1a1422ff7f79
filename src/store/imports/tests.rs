//! The promises of imports, with a clock that moves by hand.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::domain::clock::ManualClock;
use crate::domain::problem::Code;
use crate::store::sql;
use crate::store::testing;

const LEASE: Duration = Duration::from_mins(1);

struct Depot {
    imports: Imports,
    clock: Arc<ManualClock>,
    tenant: Tenant,
    _folder: tempfile::TempDir,
}

impl Depot {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let clock = Arc::new(ManualClock::at(from_millis(1_000_000)));
        let database = testing::open(folder.path()).await;
        let imports = Imports::new(database, clock.clone());
        Self { imports, clock, tenant: Tenant::default(), _folder: folder }
    }

    async fn want(&self, tenant: &str, name: &str) -> ImportCreation {
        let new = WantedFile {
            kind: Kind::Checkpoint,
            name: name.parse().expect("a name"),
            source: "https://models.example/m.pt".parse().expect("an address"),
            sha256: Some([7; 32]),
            labels: BTreeMap::new(),
            token: Some("hf_secret".to_owned()),
        };
        self.imports.create(&tenant.parse().expect("a tenant"), new, None).await.expect("writes")
    }

    async fn take(&self) -> Option<ToFetch> {
        self.imports.claim(LEASE).await.expect("claims")
    }

    async fn only(&self) -> Import {
        let listing = Listing { limit: 50, after: None, state: None, labels: BTreeMap::new() };
        let mut list = self.imports.list(&self.tenant, &listing).await.expect("reads");
        assert_eq!(list.len(), 1);
        list.remove(0)
    }

    async fn token(&self) -> Option<String> {
        sql::query_scalar("SELECT token FROM imports").fetch_one(self.imports.database.reader()).await.expect("reads")
    }
}

#[tokio::test]
async fn a_file_is_fetched_by_one_at_a_time_and_its_token_goes_with_its_end() {
    let depot = Depot::new().await;
    assert!(matches!(depot.want("default", "m.pt").await, ImportCreation::Made(_)));
    assert!(matches!(depot.want("default", "m.pt").await, ImportCreation::NameTaken(_)));
    let held = depot.take().await.expect("an import");
    assert_eq!(
        (held.file.token.as_deref(), held.file.sha256, held.file.name.as_str()),
        (Some("hf_secret"), Some([7; 32]), "m.pt")
    );
    assert!(!format!("{held:?}").contains("hf_secret"));
    assert_eq!(depot.only().await.state, ImportState::Running);
    for _ in 0..3 {
        depot.clock.advance(LEASE / 2);
        assert!(depot.take().await.is_none(), "it is held");
        assert!(depot.imports.renew(&held, LEASE).await.expect("writes"));
    }
    depot.imports.note_version(&held, Some("\"v1\"")).await.expect("writes");
    depot.clock.advance(2 * LEASE);
    let heir = depot.take().await.expect("whoever had it has died");
    assert_eq!(heir.etag.as_deref(), Some("\"v1\""));
    assert!(!depot.imports.renew(&held, LEASE).await.expect("reads"), "it came too late");
    depot.imports.succeed(&held, "ckpt_0").await.expect("writes nothing");
    assert_eq!(depot.only().await.state, ImportState::Running);
    depot.imports.succeed(&heir, "ckpt_1").await.expect("writes");
    assert_eq!(depot.only().await.state, ImportState::Succeeded { file: "ckpt_1".to_owned() });
    assert_eq!(depot.token().await, None);
    assert!(matches!(depot.want("default", "m.pt").await, ImportCreation::Made(_)), "the name may be asked for again");
}

#[tokio::test]
async fn what_the_source_has_spoilt_is_tried_again_and_given_up_in_the_end() {
    let depot = Depot::new().await;
    depot.want("default", "m.pt").await;
    let away = Problem::new(Code::SourceFailed, "nobody answers");
    let mut tried = 0;
    while let Some(held) = depot.take().await {
        tried += 1;
        depot.imports.fail(&held, &away, true).await.expect("writes");
        match depot.only().await.state {
            ImportState::Waiting { next, problem } => {
                assert_eq!(problem.as_ref(), Some(&away));
                assert!(depot.take().await.is_none(), "not yet");
                let wait = next.duration_since(depot.imports.clock.now());
                depot.clock.advance(wait.try_into().expect("a time to come"));
            }
            ImportState::Failed(problem) => assert_eq!(problem, away),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((tried, depot.token().await), (7, None));
}

#[tokio::test]
async fn what_cannot_succeed_fails_at_once_and_an_end_from_outside_counts_for_nothing() {
    let depot = Depot::new().await;
    depot.want("default", "m.pt").await;
    for _ in 0..20 {
        let held = depot.take().await.expect("an import");
        depot.imports.release(&held).await.expect("writes");
    }
    let held = depot.take().await.expect("an import");
    depot.imports.fail(&held, &Problem::new(Code::DigestMismatch, "another file"), false).await.expect("writes");
    assert!(matches!(depot.only().await.state, ImportState::Failed(_)));
    depot.clock.advance(Duration::from_hours(31 * 24));
    assert_eq!(depot.imports.forget_old().await.expect("deletes"), 1);
}

#[tokio::test]
async fn tenants_have_two_at_a_time_and_a_limit() {
    let depot = Depot::new().await;
    for place in 0..MOST {
        depot.want("default", &format!("m{place}.pt")).await;
    }
    assert!(matches!(depot.want("default", "more.pt").await, ImportCreation::TooMany));
    depot.want("neighbour", "m.pt").await;
    let mut taken = Vec::new();
    while let Some(held) = depot.take().await {
        taken.push(held.tenant.to_string());
    }
    assert_eq!(taken, ["default", "default", "neighbour"]);
    let held = depot.imports.find(&depot.tenant, ImportId::new()).await.expect("reads");
    assert_eq!(held, None);
}
