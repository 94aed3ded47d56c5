//! Is the forecast of a pool's size worth having? Beside a pool of fixed size that costs as much.
//!
//! `make bench-pool`. No I/O and no clock: time is a number, demand is drawn from SEED (1), so that a run can be repeated digit by
//! digit. Forecast and sizer are the controller's own (`control::pool::forecast`); around them stands what its tender does once a
//! second, with the same bound of machines that are made at a time.
#![allow(
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a bench prints; its numbers are small and positive"
)]

use std::collections::VecDeque;

use control::model::Sizing;
use control::pool::forecast::{Demand, Sizer};
use control::workflow::tend::FILLING;

const DAY: u64 = 86_400;
/// A Thursday's midnight, as good as any.
const BEGIN: u64 = 20_000 * DAY;
/// What the forecast may learn from before it is judged.
const LEARNED: u64 = 2;
/// How many days are judged.
const JUDGED: u64 = 5;
/// From the order of a machine until it is ready, in seconds: a virtual machine's boot.
const REFILL: u64 = 20;
const HIT_RATE: f64 = 0.95;

/// SplitMix64.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Between 0 and 1.
    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// From low to high, both of them possible.
    fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    /// How many of a Poisson process within a second, at this rate (below some tens).
    fn poisson(&mut self, rate: f64) -> u32 {
        let (limit, mut product, mut count) = ((-rate).exp(), self.share(), 0);
        while product > limit {
            product *= self.share();
            count += 1;
        }
        count
    }
}

/// How many ask in each second.
type Requests = Vec<u32>;
type Draw = fn(&mut Chance) -> Requests;

fn by_rate(chance: &mut Chance, rate_a_minute: impl Fn(u64) -> f64) -> Requests {
    (0..(LEARNED + JUDGED) * DAY).map(|second| chance.poisson(rate_a_minute(second) / 60.0)).collect()
}

/// One by one, at the same rate for ever.
fn steady(chance: &mut Chance) -> Requests {
    by_rate(chance, |_| 6.0)
}

/// The same every day: little at night, the most at two in the afternoon.
fn diurnal(chance: &mut Chance) -> Requests {
    by_rate(chance, |second| {
        let hour = (second % DAY) as f64 / 3600.0;
        5.0 + 4.8 * ((hour - 14.0) / 24.0 * std::f64::consts::TAU).cos()
    })
}

/// Seldom anybody, and at times many at once that nobody could foresee: a group of 5 to 30 within ten seconds, twice an hour.
fn bursty(chance: &mut Chance) -> Requests {
    let mut requests = by_rate(chance, |_| 0.5);
    let seconds = requests.len() as u64;
    for second in 0..seconds {
        if chance.share() < 2.0 / 3600.0 {
            for _ in 0..chance.between(5, 30) {
                let at = second + chance.between(0, 9);
                if let Some(count) = requests.get_mut(at as usize) {
                    *count += 1;
                }
            }
        }
    }
    requests
}

/// A rise within minutes to twenty times the demand, at eight in the morning, and as steep a fall at six.
fn office(chance: &mut Chance) -> Requests {
    by_rate(chance, |second| {
        let hour = (second % DAY) as f64 / 3600.0;
        if (8.0..18.0).contains(&hour) { 10.0 } else { 0.5 }
    })
}

/// What a pool has come to in the days that are judged.
#[derive(Clone, Copy, Default)]
struct Outcome {
    asked: u64,
    hits: u64,
    idle_seconds: u64,
}

impl Outcome {
    fn hit_rate(&self) -> f64 {
        self.hits as f64 / self.asked.max(1) as f64
    }

    /// Machine-hours a day.
    fn idle_hours(&self) -> f64 {
        self.idle_seconds as f64 / 3600.0 / JUDGED as f64
    }
}

/// A pool under these requests; `size` says each second how large it should be: (now, requests in the second, idle machines).
fn simulate(requests: &Requests, mut size: impl FnMut(u64, u32, u32) -> u32) -> Outcome {
    let mut outcome = Outcome::default();
    // When the machines that are being made are ready.
    let mut making: VecDeque<u64> = VecDeque::new();
    let mut ready = 0_u32;
    for (second, asked) in (0_u64..).zip(requests) {
        while making.pop_front_if(|due| *due <= second).is_some() {
            ready += 1;
        }
        let hits = ready.min(*asked);
        ready -= hits;
        let wanted = size(BEGIN + second, *asked, ready);
        let under_way = making.len() as u32;
        let missing = wanted.saturating_sub(ready + under_way).min(FILLING.saturating_sub(under_way));
        making.extend((0..missing).map(|_| second + REFILL));
        ready = ready.min(wanted);
        if second >= LEARNED * DAY {
            outcome.asked += u64::from(*asked);
            outcome.hits += u64::from(hits);
            outcome.idle_seconds += u64::from(ready);
        }
    }
    outcome
}

fn forecast(requests: &Requests) -> Outcome {
    let sizing = Sizing { min: 0, max: 10_000, hit_rate: HIT_RATE, budget_hours: None };
    let (mut demand, mut sizer) = (Demand::new(BEGIN), Sizer::new(BEGIN));
    simulate(requests, |now, asked, idle| {
        (0..asked).for_each(|_| demand.request(now));
        demand.advance(now);
        sizer.size(now, demand.wanted(REFILL as f64, HIT_RATE), idle, &sizing)
    })
}

fn fixed(requests: &Requests, size: u32) -> Outcome {
    simulate(requests, |_, _, _| size)
}

/// What a fixed size would have come to at this cost: between the two sizes around it, in proportion.
fn fixed_at(requests: &Requests, idle_hours: f64) -> (f64, f64) {
    let mut below = (0, fixed(requests, 0));
    loop {
        let above = (below.0 + 1, fixed(requests, below.0 + 1));
        if above.1.idle_hours() >= idle_hours {
            let width = above.1.idle_hours() - below.1.idle_hours();
            let share = if width > 0.0 { (idle_hours - below.1.idle_hours()) / width } else { 1.0 };
            let hit_rate = below.1.hit_rate() + share * (above.1.hit_rate() - below.1.hit_rate());
            return (f64::from(below.0) + share, hit_rate);
        }
        below = above;
    }
}

/// The least fixed size that serves as many: what it costs.
fn fixed_for(requests: &Requests, hit_rate: f64) -> (u32, Outcome) {
    (0..)
        .map(|size| (size, fixed(requests, size)))
        .find(|(_, outcome)| outcome.hit_rate() >= hit_rate)
        .unwrap_or_default()
}

fn main() {
    let seed = std::env::var("SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    println!("command: make bench-pool SEED={seed}");
    println!(
        "{JUDGED} days after {LEARNED} to learn from; a machine is ready after {REFILL} s, at most {FILLING} are made at a time; \
         hit rate wanted {HIT_RATE}"
    );
    let demands: [(&str, Draw); 4] =
        [("steady", steady), ("diurnal", diurnal), ("office", office), ("bursty", bursty)];
    for (name, draw) in demands {
        let requests = draw(&mut Chance(seed));
        let outcome = forecast(&requests);
        let (size, hit_rate) = fixed_at(&requests, outcome.idle_hours());
        let (equal, dear) = fixed_for(&requests, outcome.hit_rate());
        println!(
            "{name:<8} {:>6} requests: forecast {:.2} % hits for {:.0} idle machine-hours a day; fixed at the same cost (size {size:.1}) \
             {:.2} %; fixed with as many hits (size {equal}) {:.0} hours",
            outcome.asked,
            outcome.hit_rate() * 100.0,
            outcome.idle_hours(),
            hit_rate * 100.0,
            dear.idle_hours(),
        );
    }
}
