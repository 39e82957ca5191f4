//! What other proxies tell of limits that count for all of them together.

use std::time::Duration;

use lb_proxy::peers::datagram::{LONGEST, Refused, Seal};
use lb_route::overall::{Admitted, Life, Overall, Told, ZoneId};

use crate::site;

const KEY: &[u8] = b"of no other proxy";
/// Keys that are remembered, about.
const ROOM: usize = 64;
const NOW: Duration = Duration::from_secs(1_700_000_000);

/// A datagram of another proxy.
pub fn peers(data: &[u8]) {
    let (plain, keyed) = (Seal::new(None), Seal::new(Some(KEY)));
    let forged = keyed.read(data);
    assert_eq!(forged, Err(Refused::Forged), "its tag was guessed");
    let Ok((whose, mut told)) = plain.read(data) else {
        return;
    };
    told.sort_unstable();
    for seal in [plain, keyed] {
        let mut heard = Vec::new();
        for datagram in seal.write(whose, told.clone()) {
            assert!(datagram.len() <= LONGEST, "{} bytes", datagram.len());
            let (of, some) = seal.read(&datagram).expect("it was written here");
            assert_eq!(of, whose);
            heard.extend(some);
        }
        assert_eq!(heard, told);
    }
    hear(whose.life(), told);
}

/// Takes it in: what is remembered of it has bounds, and what is told on is not more.
fn hear(life: Life, told: Vec<Told>) {
    let limits = Overall::new(ROOM);
    limits.tell();
    assert!(limits.adapt(site::table()));
    let (ingress, limit) = site::limited();
    let admit = |at| limits.admit(ingress, limit, b"a client", at);
    assert_eq!(admit(NOW), Admitted::First);
    let [own] = limits.take_untold()[..] else {
        panic!("one client was let in");
    };
    // Which Ingress, which window and which client nobody would guess.
    let of_site = |told: Told| Told {
        zone: if told.zone == ZoneId(0) {
            own.zone
        } else {
            told.zone
        },
        window: own.window.wrapping_add(told.window).wrapping_sub(1),
        key: if told.key.0 == [0; 16] {
            own.key
        } else {
            told.key
        },
        ..told
    };
    let told: Vec<Told> = told.into_iter().map(of_site).collect();
    for _ in 0..2 {
        limits.hear(life, told.iter().copied(), NOW);
        assert!(limits.keys() <= ROOM, "{} keys", limits.keys());
        let all = limits.all(NOW, |_| true);
        if limits.forgotten() == 0 {
            assert_eq!(all.get(&None), Some(&vec![own]));
        }
        let heard = all.get(&Some(life)).map_or(0, Vec::len);
        assert!(heard <= told.len());
    }
    for seconds in [0, 1, 60, 100_000] {
        admit(NOW + Duration::from_secs(seconds));
    }
}
