//! How fast a stream is, printed; no assertion. `cargo nextest run -p skep-overlay --run-ignored only --no-capture tunnel::speed`

use super::foreign::{Foreign, hide_run};
use super::*;

const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(4);

/// Processor seconds of a process so far.
fn processor_s(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // After the name in brackets: user and system time are the 12th and 13th, in hundredths.
    let numbers: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    numbers[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap() / 100.0).sum()
}

/// Gigabits a second of one stream, and what `carriers` needed for a gigabyte, in processor seconds.
fn measure(server: &OwnedFd, client: &OwnedFd, address: Ipv4Addr, carriers: [u32; 2]) -> (f64, f64) {
    let before = carriers.map(processor_s);
    let rate = rate(server, client, address);
    let spent: f64 = carriers.into_iter().zip(before).map(|(pid, before)| processor_s(pid) - before).sum();
    (rate, spent / (rate / 8.0 * ROUND.as_secs_f64()))
}

/// Gigabits a second of one stream.
fn rate(server: &OwnedFd, client: &OwnedFd, address: Ipv4Addr) -> f64 {
    let to = SocketAddr::from((address, 80));
    let listener = within(server, || TcpListener::bind(to).unwrap());
    let receiver = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = vec![0; 1 << 18];
        let mut total = 0;
        let begin = Instant::now();
        while let Ok(length) = stream.read(&mut buffer)
            && length > 0
        {
            total += length;
        }
        total as f64 * 8e-9 / begin.elapsed().as_secs_f64()
    });
    let mut stream = within(client, || TcpStream::connect_timeout(&to, PATIENCE).unwrap());
    let begin = Instant::now();
    while begin.elapsed() < ROUND {
        stream.write_all(&[7; 1 << 17]).unwrap();
    }
    drop(stream);
    receiver.join().unwrap()
}

#[test]
#[ignore = "a measurement, not a test"]
fn one_stream() {
    lab::run(|lab| {
        hide_run();
        let ours = nodes(&lab, 2);
        let mut theirs = [Foreign::plug(3), Foreign::plug(4)];
        theirs[0].start(4, Some((wire_address(4), PORT).into()));
        theirs[1].start(3, Some((wire_address(3), PORT).into()));
        for _ in 0..ROUNDS {
            let plain = rate(&ours[1].namespace, &ours[0].namespace, wire_address(2));
            let foreign = theirs.each_ref().map(Foreign::pid);
            let (other, other_s) = measure(&theirs[1].namespace, &theirs[0].namespace, tunnel_address(4), foreign);
            let helpers = [ours[0].daemon().pid().cast_unsigned(), ours[1].daemon().pid().cast_unsigned()];
            let (own, own_s) = measure(&ours[1].namespace, &ours[0].namespace, tunnel_address(2), helpers);
            println!(
                "plain {plain:.2}, wireguard-go {other:.2} ({other_s:.2} s/GB), own {own:.2} Gbit/s ({own_s:.2} s/GB): \
                 {:.2} times as fast, {:.2} of the work",
                own / other,
                own_s / other_s
            );
        }
    });
}
