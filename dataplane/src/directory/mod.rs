//! The map (vnet, customer IP) → (physical IP, MAC), read by every packet and never waited for.
