//! The pipeline's corpus is worth its room: between them its inputs see nearly every end that a packet can have.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use dataplane::pipeline::{DropReason, Trap, Verdict};
use shunt_fuzz::pipeline::run;

/// What happens outside of the pipeline, only to a document that is not the scene's (whose ports have no rules), or only to
/// who asks without end.
const OUT_OF_REACH: [DropReason; 14] = [
    DropReason::Moved,
    DropReason::StaleReply,
    DropReason::UnderlaySend,
    DropReason::PortSend,
    DropReason::PortDown,
    DropReason::PeerNetworkAbsent,
    DropReason::TrapRateLimited,
    DropReason::DhcpRateLimited,
    DropReason::PeerRateLimited,
    DropReason::RuleDeniedOut,
    DropReason::RuleDeniedIn,
    DropReason::ConnectionsFull,
    DropReason::FragmentUnmatched,
    DropReason::MetadataFull,
];

#[test]
fn the_corpus_sees_every_end() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/pipeline");
    let seen: BTreeSet<&str> = fs::read_dir(folder)
        .unwrap()
        .flat_map(|entry| run(&fs::read(entry.unwrap().path()).unwrap()))
        .map(|verdict| match verdict {
            Verdict::Deliver(_) => "deliver",
            Verdict::Underlay(_) => "underlay",
            // The pipeline's scene has no endpoint for metadata.
            Verdict::Detour => "detour",
            Verdict::Reply(trap) | Verdict::Absorbed(trap) => trap.name(),
            Verdict::Drop(reason) => reason.name(),
        })
        .collect();
    let reachable = DropReason::ALL.iter().filter(|reason| !OUT_OF_REACH.contains(reason));
    let ends = ["deliver", "underlay"].into_iter();
    let traps = Trap::ALL.iter().filter(|trap| **trap != Trap::Metadata);
    let ends = ends.chain(traps.map(|trap| trap.name())).chain(reachable.map(|reason| reason.name()));
    let missing: Vec<_> = ends.filter(|end| !seen.contains(end)).collect();
    assert!(missing.is_empty(), "never seen: {missing:?}");
}
