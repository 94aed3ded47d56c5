//! The pool manager: how many partially provisioned machines of each combination are kept, and who gets one.
//!
//! A machine that is ready has a row in its pool's stock. Taking it is removing that row in a transaction that requires
//! it: so no machine is handed out twice, whoever asks. Never here: how machines are made or handed over.

pub mod forecast;
mod stock;

pub use stock::{
    Stocked, all, key as pool_key, of_combination, pool, prefix, put_in_stock, stock, stock_prefix, take,
};
