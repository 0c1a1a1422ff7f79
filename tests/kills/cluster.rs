//! Two servers and eight workers on three machines, with one PostgreSQL server and one bucket: everything fails all the time.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::str::FromStr;
use std::time::Duration;

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::time::sleep;

use crate::common::app::{TestApp, database};
use crate::common::bucket::Bucket;
use crate::lab::{KINDS, LIMIT, Lab, PREFIX};
use crate::processes::{Home, Lease, Worker};
use crate::strikes::Strike;

const MACHINES: usize = 3;
const WORKERS: usize = 8;
/// Eight workers on two cores are slow to say that they are alive.
const LEASE: Lease = Lease { lease: "4", heartbeat: "0.5" };
/// One request to the bucket in so many fails.
const FAILS_IN: u64 = 20;

/// What happens to the cluster.
#[derive(Debug, Clone, Copy)]
enum Blow {
    /// A worker, what computes for it, or both are killed.
    Worker,
    /// The second server is killed while it accepts a job.
    Server,
    /// The database server is cut off from everybody, and comes again.
    Database,
}

/// A server of the real program, without workers.
struct Server {
    process: Child,
    home: Home,
}

impl Server {
    fn start(home: &Home) -> Self {
        // An address that an earlier one has said must not be taken for this one's.
        let _none_yet = std::fs::remove_file(&home.log);
        let arguments = ["serve", "--listen", "127.0.0.1:0", "--workers", "0", "--expect-device", "cpu"];
        Self { process: home.start(&arguments), home: home.clone() }
    }

    /// Where it listens, as soon as it does.
    async fn address(&self, lab: &Lab) -> SocketAddr {
        loop {
            let log = std::fs::read_to_string(&self.home.log).unwrap_or_default();
            let address = log.split(|letter: char| !letter.is_ascii_digit() && !".:".contains(letter));
            if let Some(address) =
                address.filter(|text| text.starts_with("127.0.0.1:")).find_map(|text| text.parse().ok())
            {
                return address;
            }
            lab.give_up_when_late("a server that does not start").await;
            sleep(Duration::from_millis(5)).await;
        }
    }

    fn kill(&mut self) {
        self.process.kill().expect("the server was alive");
        self.process.wait().expect("it can be waited for");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = (self.process.kill(), self.process.wait());
    }
}

/// The number in a variable of the environment.
fn number<T: FromStr<Err: std::fmt::Debug>>(variable: &str, default: T) -> T {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_of_which_everything_fails_all_the_time_loses_nothing() {
    let Some(restart) = std::env::var_os("ENGRAFT_TEST_POSTGRES_RESTART") else {
        eprintln!(
            "skipped: ENGRAFT_TEST_POSTGRES_RESTART names no program that restarts the server of ENGRAFT_TEST_POSTGRES"
        );
        return;
    };
    let (jobs, kills) = (number("ENGRAFT_TEST_CLUSTER_JOBS", 300), number("ENGRAFT_TEST_CLUSTER_KILLS", 100));
    let restarts = number("ENGRAFT_TEST_CLUSTER_RESTARTS", 10);
    let bucket = Bucket::start().await;
    let app = TestApp::builder().settings(|settings| bucket.used_by(settings, PREFIX)).start().await;
    let machines = tempfile::tempdir().expect("a folder");
    let mut variables = bucket.variables();
    variables.insert("ENGRAFT_DATABASE".to_owned(), database(app.folder.path()));
    variables.insert("ENGRAFT_BLOBS".to_owned(), Bucket::location(PREFIX).to_string());
    let home = |name: String| {
        let data_dir = machines.path().join(&name);
        Home { log: machines.path().join(format!("{name}.log")), data_dir, variables: variables.clone() }
    };
    let homes = (0..MACHINES).map(|number| home(format!("machine{number}"))).collect();
    let mut lab = Lab::at(app, Some(bucket), homes).await;
    (lab.limit, lab.unfinished_jobs, lab.lease) = (4 * LIMIT, 2 * WORKERS, LEASE);
    lab.compute_undisturbed().await;

    lab.bucket.as_ref().expect("a bucket").fail_one_in(FAILS_IN);
    let mut workers: Vec<Worker> =
        (0..WORKERS).map(|number| Worker::start(&lab.homes[number % MACHINES], LEASE)).collect();
    let mut server = Server::start(&home("server".to_owned()));
    let mut rng = ChaCha8Rng::seed_from_u64(300);
    let servers = kills / 10;
    let mut blows =
        [vec![Blow::Worker; kills - servers], vec![Blow::Server; servers], vec![Blow::Database; restarts]].concat();
    blows.shuffle(&mut rng);
    let mut killed = BTreeMap::new();
    for blow in blows {
        *killed.entry(format!("{blow:?}")).or_insert(0) += 1;
        match blow {
            Blow::Worker => {
                let before: usize = lab.strikes.values().sum();
                while lab.strikes.values().sum::<usize>() == before {
                    let strike = Strike::random(&mut rng);
                    lab.strike(&mut workers, &strike).await;
                }
            }
            Blow::Server => {
                let delay = Duration::from_micros(rng.random_range(0..30_000));
                server = lab.strike_server(server, delay).await;
            }
            Blow::Database => lab.restart_database(&restart).await,
        }
    }
    while lab.jobs.len() < jobs {
        lab.post(lab.jobs.len() % KINDS).await;
    }
    lab.wait_for_all().await;
    for worker in workers {
        lab.stop(worker).await;
    }
    assert_eq!(lab.all(None).await.len(), lab.jobs.len() + KINDS, "each job that was accepted is there once");
    let bucket = lab.bucket.as_ref().expect("a bucket");
    let requests = bucket.requests();
    bucket.fail_one_in(0);
    let interruptions = lab.check().await;
    println!(
        "{} jobs, {killed:?}, {interruptions} attempts cut short, one in {FAILS_IN} of {requests} requests to the bucket failed, {:?}; {:?}",
        lab.jobs.len(),
        lab.begun.elapsed(),
        lab.strikes
    );
    let mut verify = lab.homes[0].start(&["verify"]);
    assert!(verify.wait().expect("it can be waited for").success(), "what is stored is whole");
    lab.app.stop().await;
}

impl Lab {
    /// Kills a server while it accepts a job; another comes in its place, and the other server knows what was accepted.
    async fn strike_server(&mut self, mut server: Server, delay: Duration) -> Server {
        let address = server.address(self).await;
        let (kind, key) = (self.jobs.len() % KINDS, format!("job {}", self.jobs.len()));
        let blow = async {
            sleep(delay).await;
            server.kill();
        };
        let (accepted, ()) = tokio::join!(self.post_to(address, kind, &key), blow);
        let job = self.post_to(self.app.address, kind, &key).await.expect("the other server answers");
        assert!(accepted.is_none_or(|accepted| accepted == job), "it is the same job: {accepted:?}, {job}");
        self.jobs.push((job, kind));
        Server::start(&server.home)
    }

    async fn restart_database(&self, program: &std::ffi::OsStr) {
        let restarted = tokio::process::Command::new(program).stdout(Stdio::null()).status().await;
        assert!(restarted.expect("runs").success(), "the database server restarts");
        // Requests may fail while the connections are found to be broken, as they do while the server is away.
        while !self.app.get("/readyz").send().await.is_ok_and(|answer| answer.status().is_success()) {
            self.give_up_when_late("a server that is not ready again").await;
            sleep(Duration::from_millis(100)).await;
        }
        sleep(Duration::from_millis(300)).await;
    }
}
