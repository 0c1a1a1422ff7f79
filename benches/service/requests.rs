//! A server without workers and with a thousand jobs answers requests.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Result;
use crate::percentiles::percentiles;
use crate::place::Place;

const PROGRAM: &str = env!("CARGO_BIN_EXE_engraft");
const JOBS: usize = 1000;
const CONNECTIONS: usize = 32;
const FOR: Duration = Duration::from_secs(10);
/// Polls per second of all connections together, when they do not poll as fast as they can.
const PACE: u32 = 2000;
const WAITING: usize = 1000;
const TURNS: usize = 20;

/// A running server, ended with this value.
struct Server {
    process: Child,
    address: String,
}

impl Server {
    fn start(place: &Place) -> Result<Self> {
        let mut process = Command::new(PROGRAM)
            .args(["serve", "--workers", "0", "--expect-device", "cpu", "--listen", "127.0.0.1:0"])
            .arg("--data-dir")
            .arg(place.data_dir())
            .args(["--database", &place.database()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(place.data_dir().join("server.log"))?)
            .spawn()?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().ok_or("no pipe")?).read_line(&mut line)?;
        let address = line.trim().trim_start_matches("listening on http://").to_owned();
        let server = Self { process, address };
        while Client::new(&server.address).and_then(|mut client| client.get("/readyz")).map(|(status, _)| status).ok()
            != Some(200)
        {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(server)
    }

    /// What it has computed so far.
    fn cpu(&self) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        Ok(Duration::from_millis(ticks * 10))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = (self.process.kill(), self.process.wait());
    }
}

/// A connection that stays open.
struct Client(BufReader<TcpStream>);

impl Client {
    fn new(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    fn get(&mut self, path: &str) -> Result<(u16, Vec<u8>)> {
        self.send("GET", path, &[])?;
        self.answer()
    }

    fn send(&mut self, method: &str, path: &str, body: &[u8]) -> Result<()> {
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        self.0.get_mut().write_all(&request)?;
        Ok(())
    }

    /// The answer's status and body.
    fn answer(&mut self) -> Result<(u16, Vec<u8>)> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        let status = line.split(' ').nth(1).ok_or("no status")?.parse()?;
        let mut length = 0;
        loop {
            line.clear();
            self.0.read_line(&mut line)?;
            if line.trim().is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse()?;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok((status, body))
    }
}

pub(crate) fn measure(place: &Place) -> Result<()> {
    let server = Server::start(place)?;
    let ids = post_jobs(&server)?;
    drop(server);

    let mut times = timed(|| Ok(Command::new(PROGRAM).arg("--version").output().map(drop)?))?;
    println!("  engraft --version: {}", percentiles(&mut times));
    let mut times = timed(|| Server::start(place).map(drop))?;
    println!("  from the start to the first answer of /readyz: {}", percentiles(&mut times));

    let server = Server::start(place)?;
    let (mut times, elapsed) = poll(&server, &ids, None)?;
    let rate = times.len() as f64 / elapsed.as_secs_f64();
    println!("  polls of a job, {CONNECTIONS} connections: {rate:.0} per second; {}", percentiles(&mut times));
    let (mut times, elapsed) = poll(&server, &ids, Some(PACE))?;
    let rate = times.len() as f64 / elapsed.as_secs_f64();
    println!("  polls of a job at {rate:.0} per second: {}", percentiles(&mut times));
    let mut client = Client::new(&server.address)?;
    let mut times = timed(|| ok(client.get("/v1/jobs?limit=200")?).map(drop))?;
    println!("  a page of 200 of {JOBS} jobs: {}", percentiles(&mut times));
    waiting(&server, &ids)
}

/// What each of some turns took.
fn timed(mut turn: impl FnMut() -> Result<()>) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for _ in 0..TURNS {
        let asked = Instant::now();
        turn()?;
        times.push(asked.elapsed());
    }
    Ok(times)
}

fn ok((status, body): (u16, Vec<u8>)) -> Result<Vec<u8>> {
    if status >= 300 {
        return Err(format!("{status}: {}", String::from_utf8_lossy(&body)).into());
    }
    Ok(body)
}

/// Uploads two members and posts as many jobs as are wanted; their ids.
fn post_jobs(server: &Server) -> Result<Vec<String>> {
    let mut client = Client::new(&server.address)?;
    let mut member = |name: &str| -> Result<()> {
        client.send("PUT", &format!("/v1/checkpoints/{name}"), &checkpoint())?;
        ok(client.answer()?).map(drop)
    };
    member("m0.safetensors")?;
    member("m1.safetensors")?;
    let job = json!({"members": ["m0.safetensors", "m1.safetensors"], "device": "cpu"});
    let body = serde_json::to_vec(&job)?;
    let asked = Instant::now();
    let mut ids = Vec::new();
    for _ in 0..JOBS {
        client.send("POST", "/v1/jobs", &body)?;
        let view: Value = serde_json::from_slice(&ok(client.answer()?)?)?;
        ids.push(view["id"].as_str().ok_or("no id")?.to_owned());
    }
    let rate = JOBS as f64 / asked.elapsed().as_secs_f64();
    println!("{JOBS} jobs posted by one client: {rate:.0} per second; then");
    Ok(ids)
}

/// A perceptron of two layers, all zeros.
fn checkpoint() -> Vec<u8> {
    let header = json!({
        "fc1.weight": {"dtype": "F32", "shape": [64, 32], "data_offsets": [0, 8192]},
        "fc1.bias": {"dtype": "F32", "shape": [64], "data_offsets": [8192, 8448]},
        "fc2.weight": {"dtype": "F32", "shape": [10, 64], "data_offsets": [8448, 11008]},
        "fc2.bias": {"dtype": "F32", "shape": [10], "data_offsets": [11008, 11048]},
    })
    .to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + 11048, 0);
    bytes
}

/// Polls by several connections, each one request after the other: what each took, and all together.
fn poll(server: &Server, ids: &[String], pace: Option<u32>) -> Result<(Vec<Duration>, Duration)> {
    let began = Instant::now();
    let one = |number: usize| -> Result<Vec<Duration>> {
        let mut client = Client::new(&server.address)?;
        let mut times = Vec::new();
        let between = pace.map(|pace| Duration::from_secs(1) * CONNECTIONS as u32 / pace);
        let mut due = began + between.unwrap_or_default() * number as u32 / CONNECTIONS as u32;
        while began.elapsed() < FOR {
            if let Some(between) = between {
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                due += between;
            }
            let id = &ids[(number * 31 + times.len()) % ids.len()];
            let asked = Instant::now();
            ok(client.get(&format!("/v1/jobs/{id}"))?)?;
            times.push(asked.elapsed());
        }
        Ok(times)
    };
    let times = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CONNECTIONS).map(|number| scope.spawn(move || one(number))).collect();
        let joined = threads.into_iter().map(|thread| thread.join().map_err(|_| "a thread panicked")?);
        joined.collect::<Result<Vec<_>>>()
    })?;
    Ok((times.into_iter().flatten().collect(), began.elapsed()))
}

/// What the server computes while clients wait for jobs that do not change, beside what it does when nobody is there.
fn waiting(server: &Server, ids: &[String]) -> Result<()> {
    let spent = || -> Result<Duration> {
        let before = server.cpu()?;
        std::thread::sleep(FOR);
        Ok(server.cpu()?.saturating_sub(before))
    };
    let alone = spent()?;
    let mut clients = Vec::new();
    for id in ids.iter().cycle().take(WAITING) {
        let mut client = Client::new(&server.address)?;
        let request = format!("GET /v1/jobs/{id} HTTP/1.1\r\nhost: localhost\r\nprefer: wait=30\r\n\r\n");
        client.0.get_mut().write_all(request.as_bytes())?;
        clients.push(client);
    }
    std::thread::sleep(Duration::from_secs(1));
    let watched = spent()?;
    println!(
        "  {WAITING} clients wait (Prefer: wait): {watched:?} of processor time in {FOR:?}, without them {alone:?}"
    );
    Ok(())
}
