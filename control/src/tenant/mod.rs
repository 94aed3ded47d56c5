//! Tenants: who owns what under which name, how much of it, and who may ask.
//!
//! Names and quotas are rows, so that two requests at once cannot both get the last of something. Never here: HTTP.

mod names;
mod token;
mod usage;

pub use names::{Named, drop_name, find_name, hand_name, take_name};
pub use token::{Caller, Secret, TokenError, authenticate, issue, revoke, tokens};
pub use usage::{QuotaError, Resource, Usage, charge, create, find, refund, tenant_key, usage_of};
