//! How fast the queue hands out jobs and the server answers, on SQLite or on the PostgreSQL server that is named. Whoever asks takes part of
//! the same cores.
//!
//! `cargo bench --bench service -- [claims] [requests] [postgres://…]`; without a word both. On a server it makes a schema of its own, and
//! drops it in the end.

mod claims;
mod percentiles;
mod place;
mod requests;

use place::Place;

/// The benchmark's own errors end it.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("run this with `cargo bench --bench service`");
        return Ok(());
    }
    let asked = |word: &str| arguments.iter().any(|argument| argument == word);
    let both = !asked("claims") && !asked("requests");
    let load = std::fs::read_to_string("/proc/loadavg")?;
    println!("{} cores, load {}", std::thread::available_parallelism()?, load.trim());
    let server = arguments.iter().find(|argument| argument.starts_with("postgres://"));
    let runtime = tokio::runtime::Runtime::new()?;
    println!("{}", if server.is_some() { "PostgreSQL" } else { "SQLite" });
    if both || asked("claims") {
        let place = runtime.block_on(Place::new(server))?;
        runtime.block_on(claims::measure(&place))?;
        runtime.block_on(place.clear())?;
    }
    if both || asked("requests") {
        let place = runtime.block_on(Place::new(server))?;
        requests::measure(&place)?;
        runtime.block_on(place.clear())?;
    }
    Ok(())
}
