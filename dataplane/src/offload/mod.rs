//! What a NIC would do: cutting super-packets, joining segments, finishing checksums. Pure: no I/O.
