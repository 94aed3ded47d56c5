//! How many ready machines a pool should hold: a forecast of the demand over the time that a refill takes.
//!
//! Demand is counted in bins of [`BIN`]. Its rate in the near future is the greater of what the last minutes show and what
//! this time of day has shown on earlier days, scaled by how today compares with them. Wanted is the greater of two stocks: the
//! least that serves the desired share of requests at that rate, if they come one by one (Erlang's loss formula), and the
//! least that would have served this share of the last hours' requests as they came, bursts and all. `benches/pool.rs` has it
//! beside a pool of fixed size. Never here: a clock, rows, the making of machines.

use std::collections::VecDeque;

use crate::model::Sizing;

/// The width of a bin, in seconds.
pub const BIN: u64 = 10;
/// How many bins are remembered one by one: four hours. Of bursts that come twice an hour, two hours have too few to know them by.
const RECENT: usize = 1440;
/// Slots of a day, of five minutes each.
const SLOTS: usize = 288;
const SLOT_SECONDS: u64 = 86_400 / SLOTS as u64;
/// The recent rate's half-life, in bins: five minutes.
const HALF_LIFE: f64 = 30.0;
/// How much a day counts in a slot's mean.
const DAY_WEIGHT: f64 = 0.3;
/// How far today may be held to differ from the days before.
const TREND: (f64, f64) = (0.5, 3.0);
/// A stock shrinks by at most this share a minute, and never by less than one machine.
const SHRINK_A_MINUTE: f64 = 0.1;

/// What is remembered of a pool's demand. Bounded: some 10 KiB.
#[derive(Debug, Clone)]
pub struct Demand {
    /// Requests in each of the last bins, the current one last.
    recent: VecDeque<u32>,
    /// The current bin's number since the epoch.
    bin: u64,
    /// Requests a second, decaying.
    rate: f64,
    /// Requests a second at each time of day; negative: never seen.
    daily: Vec<f64>,
    /// Requests in the current slot so far, and the slot's number since the epoch.
    slot: (u64, u32),
}

impl Demand {
    /// Nothing has been asked for before `now`, in seconds since the epoch.
    #[must_use]
    pub fn new(now: u64) -> Self {
        Self {
            recent: VecDeque::from([0]),
            bin: now / BIN,
            rate: 0.0,
            daily: vec![-1.0; SLOTS],
            slot: (now / SLOT_SECONDS, 0),
        }
    }

    /// A request came at `now`, in seconds since the epoch. Times that go backwards count as the last one.
    pub fn request(&mut self, now: u64) {
        self.advance(now);
        if let Some(last) = self.recent.back_mut() {
            *last = last.saturating_add(1);
        }
        self.slot.1 = self.slot.1.saturating_add(1);
    }

    /// Lets time pass until `now`.
    pub fn advance(&mut self, now: u64) {
        let bin = now / BIN;
        // Whoever slept for longer than all that is remembered need not walk through it.
        if bin > self.bin + RECENT as u64 {
            self.recent.clear();
            self.recent.push_back(0);
            self.rate = 0.0;
            self.bin = bin;
        }
        while self.bin < bin {
            let count = self.recent.back().copied().unwrap_or(0);
            let keep = (-std::f64::consts::LN_2 / HALF_LIFE).exp();
            self.rate = keep * self.rate + (1.0 - keep) * f64::from(count) / BIN as f64;
            if self.recent.len() == RECENT {
                self.recent.pop_front();
            }
            self.recent.push_back(0);
            self.bin += 1;
        }
        let slot = now / SLOT_SECONDS;
        // A day without a word is like a day that was not seen.
        if slot > self.slot.0 + SLOTS as u64 {
            self.slot = (slot, 0);
        }
        while self.slot.0 < slot {
            let (number, count) = self.slot;
            let seen = f64::from(count) / SLOT_SECONDS as f64;
            if let Some(mean) = self.daily.get_mut(slot_of_day(number)) {
                *mean = if *mean < 0.0 { seen } else { (1.0 - DAY_WEIGHT) * *mean + DAY_WEIGHT * seen };
            }
            self.slot = (number + 1, 0);
        }
    }

    /// The expected number of requests within `horizon` seconds from the time last told.
    fn expected(&self, horizon: f64) -> f64 {
        let usual = |slot: u64| self.daily.get(slot_of_day(slot)).copied().filter(|rate| *rate >= 0.0);
        // The slot in which the horizon ends counts too: a morning's rise must be met before it comes.
        let ahead = self.slot.0 + u64::from(whole(horizon / SLOT_SECONDS as f64));
        let daily = match (usual(self.slot.0), usual(ahead)) {
            (Some(now), Some(then)) => {
                let rate = now.max(then);
                // Few requests say little about the day: one request in a slot either way is no trend.
                let little = 1.0 / SLOT_SECONDS as f64;
                let trend = ((self.rate + little) / (now + little)).clamp(TREND.0, TREND.1);
                rate * trend
            }
            (None, Some(then)) => then,
            _ => 0.0,
        };
        self.rate.max(daily) * horizon
    }

    /// The least stock that would have served this share of the remembered requests, machines that are taken being replaced
    /// after `refill` seconds. It knows bursts of any form, if they have been there.
    fn would_have_served(&self, refill: f64, hit_rate: f64) -> u32 {
        let width = (whole(refill / BIN as f64) as usize).clamp(1, RECENT / 4);
        let asked: u64 = self.recent.iter().map(|count| u64::from(*count)).sum();
        let bearable = (1.0 - hit_rate) * asked as f64;
        let (mut low, mut high) = (0, asked);
        while low < high {
            let middle = u64::midpoint(low, high);
            if self.lost(middle, width) as f64 <= bearable { high = middle } else { low = middle + 1 }
        }
        u32::try_from(low).unwrap_or(u32::MAX)
    }

    /// How many of the remembered requests such a stock would not have served, a machine being away for `width` bins.
    fn lost(&self, stock: u64, width: usize) -> u64 {
        let mut away: VecDeque<u64> = VecDeque::with_capacity(width);
        let (mut lost, mut ready) = (0, stock);
        for count in self.recent.iter().map(|count| u64::from(*count)) {
            if away.len() == width {
                ready += away.pop_front().unwrap_or(0);
            }
            let served = count.min(ready);
            lost += count - served;
            ready -= served;
            away.push_back(served);
        }
        lost
    }

    /// The stock that serves a share of `hit_rate` of the requests, when a machine that is taken is replaced within
    /// `refill` seconds.
    #[must_use]
    pub fn wanted(&self, refill: f64, hit_rate: f64) -> u32 {
        let mean = self.expected(refill);
        // Where nobody asks, one machine can be found at no great cost; `Sizing::min` may say otherwise.
        if mean <= 1e-9 {
            return 0;
        }
        let hit_rate = hit_rate.clamp(0.0, 0.9999);
        least_stock(mean, hit_rate).max(self.would_have_served(refill, hit_rate))
    }
}

#[expect(clippy::cast_possible_truncation, reason = "less than SLOTS")]
const fn slot_of_day(slot: u64) -> usize {
    (slot % SLOTS as u64) as usize
}

/// The next whole number, at most a million.
#[expect(clippy::cast_possible_truncation, reason = "it is within bounds; what is not a number is none")]
fn whole(number: f64) -> u32 {
    number.ceil().clamp(0.0, 1e6) as u32
}

/// The least stock that loses at most a share of `1 - hit_rate` of the requests when they come one by one, `mean` of them in the
/// time of a refill. Erlang's loss formula: a machine that is taken is away for a refill's time, and a request that finds none
/// does not wait.
fn least_stock(mean: f64, hit_rate: f64) -> u32 {
    let (mut stock, mut lost) = (0_u32, 1.0);
    while lost > 1.0 - hit_rate && stock < 1_000_000 {
        stock += 1;
        lost = mean * lost / (f64::from(stock) + mean * lost);
    }
    stock
}

/// The size that a pool is kept at: follows what is wanted at once upwards and slowly downwards, within its bounds.
#[derive(Debug, Clone)]
pub struct Sizer {
    size: f64,
    last: u64,
    /// Idle machine-seconds spent in the last day, decaying.
    spent: f64,
}

impl Sizer {
    /// A pool that is empty at `now`, in seconds since the epoch.
    #[must_use]
    pub fn new(now: u64) -> Self {
        Self { size: 0.0, last: now, spent: 0.0 }
    }

    /// The size to keep, given what is wanted and how many machines have been idle since the call before.
    pub fn size(&mut self, now: u64, wanted: u32, idle: u32, sizing: &Sizing) -> u32 {
        let passed = now.saturating_sub(self.last) as f64;
        self.last = self.last.max(now);
        let day = 86_400.0;
        self.spent = self.spent * (-passed / day).exp() + f64::from(idle) * passed;
        let shrunk = self.size - (self.size * SHRINK_A_MINUTE).max(1.0) * passed / 60.0;
        self.size = f64::from(wanted).max(shrunk);
        // Over the budget, what is idle shrinks to what the budget pays for as it is spent.
        let affordable = sizing.budget_hours.map_or(f64::INFINITY, |hours| {
            let left = (hours * 3600.0 - self.spent) / (hours * 3600.0).max(1.0);
            // A tenth of the budget is kept for the ordinary rate of spending.
            if left > 0.1 { f64::INFINITY } else { hours / 24.0 }
        });
        let bounded = self.size.min(affordable).max(f64::from(sizing.min)).min(f64::from(sizing.max));
        whole(bounded)
    }
}

#[cfg(test)]
mod tests;
