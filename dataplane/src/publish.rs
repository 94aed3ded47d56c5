//! Publication of one immutable snapshot to all workers, and the epoch that tells when a change is settled.
