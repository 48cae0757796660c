//! Measures the pool: `cargo run -p silo-net --example sandboxes [count]`, as root.
//!
//! Works in a private network namespace; nothing of the host changes.

#![expect(clippy::print_stdout, reason = "a measuring program")]

use std::time::{Duration, Instant};

use silo_net::{Network, NetworkConfig, PortMapping, Protocol};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let count = std::env::args().nth(1).map_or(Ok(200), |n| n.parse())?;
    silo_sys::netns::unshare()?;
    let (open, network) = timed(|| Network::open(NetworkConfig::default()));
    let network = network?;
    report("open", &mut [open]);

    // One after the other, as fast as they are made: the cost of one without a pool.
    let mut ready = Vec::new();
    let start = Instant::now();
    for _ in 0..count {
        ready.push(network.take()?);
    }
    let each = start.elapsed() / u32::try_from(count)?;
    report("made, one after the other", &mut [each]);

    let mut publish = Vec::new();
    let mut unpublish = Vec::new();
    for sandbox in &ready {
        let port = [PortMapping::new(80, Protocol::Tcp, 0)];
        publish.push(timed(|| network.publish(sandbox, &port)).0);
        unpublish.push(timed(|| network.unpublish(sandbox)).0);
    }
    report("publish tcp", &mut publish);
    report("unpublish tcp", &mut unpublish);

    let mut stats = Vec::new();
    for sandbox in &ready {
        stats.push(timed(|| network.stats(sandbox)).0);
    }
    report("stats", &mut stats);

    let before = cpu();
    let mut release = Vec::new();
    for sandbox in ready {
        release.push(timed(|| network.release(sandbox)).0);
    }
    report("release", &mut release);
    println!("cpu of the process until then: {before:?}");

    // With the time of a container between two takes, in which the pool refills.
    let mut take = Vec::new();
    for _ in 0..count.min(100) {
        let (time, sandbox) = timed(|| network.take());
        take.push(time);
        let end = Instant::now() + Duration::from_millis(10);
        while Instant::now() < end {
            std::thread::yield_now();
        }
        network.release(sandbox?)?;
    }
    report("take, 10 ms apart", &mut take);
    let start = Instant::now();
    network.remove_all()?;
    report("remove_all", &mut [start.elapsed()]);
    Ok(())
}

fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let result = work();
    (start.elapsed(), result)
}

fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

fn report(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    println!("{what:30} p50 {:>10.1?}  p99 {:>10.1?}", at(50), at(99));
}
