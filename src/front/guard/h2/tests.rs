//! Floods and stalls, frame by frame.

use proptest::prelude::*;

use super::*;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const PRIORITY_UPDATE: u8 = 0x10;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

fn limits() -> Http2 {
    Http2 { streams: 4, resets_per_minute: 5, control_per_minute: 10, continuations: 3, ..Http2::default() }
}

struct Client {
    watch: Watch,
    now: Instant,
}

impl Client {
    fn new() -> Client {
        let mut client = Client { watch: Watch::new(&limits()), now: Instant::now() };
        assert_eq!(client.watch.feed(H2_PREFACE, client.now), Ok(()));
        client
    }

    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Result<(), Breach> {
        self.watch.feed(&frame(kind, flags, stream, payload), self.now)
    }

    fn receive(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.watch.sent(frame(kind, flags, stream, payload).len());
    }

    fn after(&mut self, seconds: u64) -> &mut Client {
        self.now += Duration::from_secs(seconds);
        self
    }

    /// How many of these frames pass before a breach.
    fn flood(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> (usize, Breach) {
        for sent in 0..100_000 {
            if let Err(breach) = self.send(kind, flags, stream, payload) {
                return (sent, breach);
            }
        }
        panic!("never refused");
    }
}

#[test]
fn wants_the_whole_preface() {
    let mut watch = Watch::new(&limits());
    for byte in H2_PREFACE {
        assert!(!watch.preface_seen());
        assert_eq!(watch.feed(&[*byte], Instant::now()), Ok(()));
    }
    assert!(watch.preface_seen());
    assert_eq!(Watch::new(&limits()).feed(b"GET / HTTP/1.1\r\n", Instant::now()), Err(Breach::Preface));
    assert_eq!(Watch::new(&limits()).feed(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX", Instant::now()), Err(Breach::Preface));
}

#[test]
fn bounds_resets_in_a_minute() {
    let mut client = Client::new();
    assert_eq!(client.flood(RESET, 0, 1, &[0; 4]), (5, Breach::Resets));
    let mut client = Client::new();
    for _ in 0..10 {
        for _ in 0..5 {
            assert_eq!(client.send(RESET, 0, 1, &[0; 4]), Ok(()));
        }
        client.after(60);
    }
}

#[test]
fn bounds_control_frames() {
    for (kind, flags, payload) in [
        (PING, 0, &[0; 8][..]),
        (SETTINGS, 0, &[]),
        (SETTINGS, 1, &[]),
        (PRIORITY, 0, &[0; 5]),
        (PRIORITY_UPDATE, 0, b"\0\0\0\x01u=1"),
        (WINDOW_UPDATE, 0, &[0, 0, 0, 1]),
        (0xfa, 0, b"grease"),
        (DATA, 0, &[]),
        (DATA, PADDED, &[2, 0, 0]),
    ] {
        assert_eq!(Client::new().flood(kind, flags, 1, payload), (10, Breach::Control), "{kind} {flags}");
    }
}

/// However slowly they come: the answer to one pays for no other.
#[test]
fn pings_are_not_paid_for_by_their_answers() {
    let mut client = Client::new();
    let passed = (0..1_000).take_while(|_| {
        let taken = client.send(PING, 0, 0, &[0; 8]).is_ok();
        client.receive(PING, 1, 0, &[0; 8]);
        taken
    });
    assert!(passed.count() < 50);
    // By answers to requests they are.
    let mut client = Client::new();
    for _ in 0..1_000 {
        client.receive(DATA, 0, 1, &[0; 1_000]);
        client.send(PING, 0, 0, &[0; 8]).unwrap();
    }
}

#[test]
fn leaves_honest_traffic_alone() {
    let mut client = Client::new();
    for stream in (1..2001).step_by(2) {
        client.send(HEADERS, END_HEADERS | END_STREAM, stream, b"x").unwrap();
        client.send(PRIORITY_UPDATE, 0, 0, b"\0\0\0\x01u=1").unwrap();
        client.receive(HEADERS, END_HEADERS, stream, b"x");
        client.receive(DATA, END_STREAM, stream, b"x");
        client.send(WINDOW_UPDATE, 0, stream, &[0, 0, 0, 1]).unwrap();
        client.send(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]).unwrap();
    }
    for _ in 0..1000 {
        client.send(DATA, PADDED, 1, &[1, b'x', 0]).unwrap();
        client.send(DATA, 0, 1, &[0; 16384]).unwrap();
    }
    assert_eq!(client.send(DATA, END_STREAM, 1, &[]), Ok(()));
}

#[test]
fn bounds_continuations_of_one_block() {
    let mut client = Client::new();
    client.send(HEADERS, 0, 1, b"x").unwrap();
    assert_eq!(client.flood(CONTINUATION, 0, 1, b"x"), (3, Breach::Continuations));
    let mut client = Client::new();
    for stream in [1, 3, 5] {
        client.send(HEADERS, 0, stream, b"x").unwrap();
        client.send(CONTINUATION, 0, stream, b"x").unwrap();
        client.send(CONTINUATION, END_HEADERS, stream, b"x").unwrap();
    }
}

#[test]
fn wants_header_blocks_whole() {
    let mut client = Client::new();
    client.send(HEADERS, 0, 1, b"x").unwrap();
    assert_eq!(client.send(PING, 0, 0, &[0; 8]), Err(Breach::HeaderBlock));
    let mut client = Client::new();
    client.send(HEADERS, 0, 1, b"x").unwrap();
    assert_eq!(client.send(CONTINUATION, END_HEADERS, 3, b"x"), Err(Breach::HeaderBlock));
    assert_eq!(Client::new().send(CONTINUATION, END_HEADERS, 1, b"x"), Err(Breach::HeaderBlock));
}

#[test]
fn bounds_the_size_of_frames() {
    let mut client = Client::new();
    assert_eq!(client.watch.feed(b"\x00\x40\x00\x00\x00\x00\x00\x00\x01", client.now), Ok(()));
    assert_eq!(
        Client::new().watch.feed(b"\x00\x40\x01\x00\x00\x00\x00\x00\x01", Instant::now()),
        Err(Breach::FrameSize)
    );
}

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![0..12u8, Just(PRIORITY_UPDATE)];
    (kind, any::<u8>(), 0..6u32, proptest::collection::vec(any::<u8>(), 0..20))
        .prop_map(|(kind, flags, stream, payload)| frame(kind, flags, stream, &payload))
}

proptest! {
    #[test]
    fn pieces_make_no_difference(
        frames in proptest::collection::vec(any_frame(), 0..40),
        cuts in proptest::collection::vec(0..1000usize, 0..10),
    ) {
        let mut stream = H2_PREFACE.to_vec();
        stream.extend(frames.concat());
        let now = Instant::now();
        let whole = Watch::new(&limits()).feed(&stream, now);
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut % stream.len()).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let mut watch = Watch::new(&limits());
        let pieces = cuts.windows(2).try_for_each(|cut| watch.feed(&stream[cut[0]..cut[1]], now));
        prop_assert_eq!(whole, pieces);
    }
}
