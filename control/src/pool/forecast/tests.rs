#![allow(clippy::unwrap_used, reason = "a test says what broke by panicking")]

use super::*;

const SIZING: Sizing = Sizing { min: 2, max: 50, hit_rate: 0.95, budget_hours: None };

/// A demand of `each` requests every `every` seconds for `seconds`.
fn steady(each: u32, every: u64, seconds: u64) -> Demand {
    let mut demand = Demand::new(0);
    for now in 0..seconds {
        demand.advance(now);
        if now % every == 0 {
            (0..each).for_each(|_| demand.request(now));
        }
    }
    demand
}

/// Erlang's loss formula by its definition: the share of time in which all are away.
fn blocked(mean: f64, stock: u32) -> f64 {
    let terms: Vec<f64> = (0..=stock)
        .scan(1.0, |term, k| {
            if k > 0 {
                *term *= mean / f64::from(k);
            }
            Some(*term)
        })
        .collect();
    terms.last().unwrap() / terms.iter().sum::<f64>()
}

#[test]
fn the_least_stock_is_the_least_that_serves_the_share() {
    for mean in [0.1, 1.0, 5.0, 40.0, 300.0] {
        for rate in [0.5, 0.9, 0.99] {
            let stock = least_stock(mean, rate);
            assert!(blocked(mean, stock) <= 1.0 - rate, "{stock} too few for {mean} at {rate}");
            assert!(blocked(mean, stock - 1) > 1.0 - rate, "{stock} too many for {mean} at {rate}");
        }
    }
    assert_eq!(least_stock(10.0, 0.0), 0);
}

#[test]
fn bursts_that_have_been_are_met_whole() {
    // Twenty at once, every half an hour, and a refill is over long before the next: nineteen serve 95 of a hundred.
    let demand = steady(20, 1800, 2 * 3600);
    assert_eq!(demand.would_have_served(60.0, 0.95), 19);
    assert_eq!(demand.would_have_served(60.0, 0.9999), 20);
    // Machines that take an hour must do for two bursts.
    assert_eq!(demand.would_have_served(2400.0, 0.9999), 40);
}

#[test]
fn a_higher_hit_rate_or_longer_refill_wants_more() {
    let demand = steady(1, 5, 3600);
    let wanted = |refill, rate| demand.wanted(refill, rate);
    assert!(wanted(30.0, 0.9) < wanted(30.0, 0.999));
    assert!(wanted(30.0, 0.95) < wanted(300.0, 0.95));
    // Six in half a minute, one by one.
    assert!((5..=12).contains(&wanted(30.0, 0.95)), "{}", wanted(30.0, 0.95));
}

#[test]
fn bursts_want_more_than_the_same_demand_one_by_one() {
    let one_by_one = steady(1, 10, 7200).wanted(60.0, 0.95);
    let bursts = steady(60, 600, 7200).wanted(60.0, 0.95);
    assert!(bursts > 2 * one_by_one, "{bursts} against {one_by_one}");
}

#[test]
fn a_morning_is_met_before_it_comes() {
    let mut demand = Demand::new(0);
    // Three days: nobody by night, one request every five seconds from eight to six.
    let day = |demand: &mut Demand, until: u64| {
        let mut now = demand.bin * BIN;
        while now < until {
            demand.advance(now);
            if (8 * 3600..18 * 3600).contains(&(now % 86_400)) {
                demand.request(now);
                demand.request(now);
            }
            now += BIN;
        }
    };
    day(&mut demand, 3 * 86_400 + 8 * 3600 - 60);
    assert!(demand.wanted(120.0, 0.95) >= 20, "{}", demand.wanted(120.0, 0.95));
    let mut night = demand.clone();
    night.advance(3 * 86_400 + 22 * 3600);
    assert_eq!(night.wanted(120.0, 0.95), 0);
}

#[test]
fn a_long_sleep_and_a_clock_that_goes_back_do_no_harm() {
    let mut demand = steady(1, 5, 3600);
    demand.advance(u64::MAX / 2);
    assert_eq!(demand.wanted(60.0, 0.95), 0);
    demand.request(7);
    demand.advance(u64::MAX / 2 + 30);
    assert!(demand.wanted(60.0, 0.95) >= 1);
}

#[test]
fn a_pool_grows_at_once_and_shrinks_slowly_within_bounds() {
    let mut sizer = Sizer::new(0);
    assert_eq!(sizer.size(0, 0, 0, &SIZING), 2);
    assert_eq!(sizer.size(10, 30, 2, &SIZING), 30);
    assert_eq!(sizer.size(20, 500, 30, &SIZING), 50);
    let mut sizes = Vec::new();
    for minute in 1..=60 {
        sizes.push(sizer.size(20 + minute * 60, 0, 50, &SIZING));
    }
    assert!(sizes[0] >= 44 && sizes.windows(2).all(|pair| pair[1] <= pair[0]), "{sizes:?}");
    assert_eq!(sizes[59], 2);
}

#[test]
fn a_budget_bounds_what_idles() {
    let sizing = Sizing { budget_hours: Some(24.0), ..SIZING };
    let mut sizer = Sizer::new(0);
    let mut idle = 0_u64;
    for minute in 0..1440_u64 {
        let size = sizer.size(minute * 60, 20, if minute == 0 { 0 } else { 20 }, &sizing);
        idle += u64::from(size) * 60;
    }
    // Within a day the minimum of two alone is 48 machine-hours; the budget holds everything above it down.
    assert!(idle < 70 * 3600, "{} machine-hours", idle / 3600);
}
