//! From rows to what hosts are told. Pure: it reads rows and says what they mean; whoever has connections sends it.

mod render;

pub use render::{RenderError, machine};
