use std::{collections::VecDeque, convert::Infallible, io::Read};

use brotli::Decompressor;
use flate2::read::GzDecoder;
use lb_route::globals::Globals;

use super::*;
use crate::headers::testing::answer;

fn coding() -> Coding {
    Coding {
        on: true,
        ..Globals::default().compression.gzip
    }
}

const HTML: (&str, &str) = ("content-type", "text/html; charset=utf-8");
const PNG: (&str, &str) = ("content-type", "image/png");

/// A status, headers, a length if it is known, and whether such an answer is compressed.
type Case = (
    u16,
    &'static [(&'static str, &'static str)],
    Option<u64>,
    bool,
);

#[rustfmt::skip]
const MEANT: &[Case] = &[
    (200, &[HTML], None, true),
    (200, &[HTML], Some(256), true),
    (200, &[HTML], Some(255), false),
    (403, &[HTML], None, true),
    (404, &[HTML], None, true),
    (201, &[HTML], None, false),
    (206, &[HTML], None, false),
    (304, &[HTML], None, false),
    (500, &[HTML], None, false),
    (200, &[("content-type", "Application/JSON")], None, true),
    (200, &[("content-type", "text/css;a=b")], None, true),
    (200, &[PNG], None, false),
    (200, &[("content-type", "text/htmlx")], None, false),
    (200, &[("content-type", "")], None, false),
    (200, &[], None, false),
    (200, &[HTML, ("content-encoding", "br")], None, false),
    (200, &[HTML, ("content-encoding", "")], None, true),
    (200, &[HTML, ("cache-control", "public")], None, true),
    (
        200,
        &[HTML, ("cache-control", "public, No-Transform")],
        None,
        false,
    ),
];

#[test]
fn some_answers_are_meant() {
    for (status, headers, length, expected) in MEANT {
        let parts = answer(*status, headers);
        let found = is_meant(&coding(), &Method::GET, &parts, *length);
        assert_eq!(found, *expected, "{status} {headers:?} {length:?}");
        assert!(!is_meant(&coding(), &Method::HEAD, &parts, *length));
    }
    let any = Coding {
        types: ["*".to_owned()].into(),
        ..coding()
    };
    assert!(is_meant(&any, &Method::GET, &answer(200, &[PNG]), None));
    assert!(!is_meant(&any, &Method::GET, &answer(200, &[]), None));
    let off = Coding { on: false, ..any };
    assert!(!is_meant(&off, &Method::GET, &answer(200, &[PNG]), None));
}

#[test]
fn clients_say_what_they_take() {
    // What is said, and whether gzip is taken, and brotli.
    let cases: &[(&[&str], bool, bool)] = &[
        (&["gzip"], true, false),
        (&["deflate, GZIP;q=0.5, br"], true, true),
        (&["deflate", "gzip; q=1"], true, false),
        (&["BR,gzip"], true, true),
        (&["gzip;q=0"], false, false),
        (&["gzip;q=0.000, br"], false, true),
        (&["gzip;q=nonsense"], false, false),
        (&["xgzip, xbr"], false, false),
        (&["gzipx, brx"], false, false),
        (&["br;q=0"], false, false),
        (&["*"], false, false),
        (&[""], false, false),
        (&[], false, false),
    ];
    for (values, gzip, brotli) in cases {
        let headers: Vec<_> = values.iter().map(|v| ("accept-encoding", *v)).collect();
        let headers = answer(200, &headers).headers;
        let found = [accepts(&headers, "gzip"), accepts(&headers, "br")];
        assert_eq!(found, [*gzip, *brotli], "{values:?}");
    }
}

#[test]
fn a_tag_is_weak() {
    let cases = [
        ("\"a\"", Some("W/\"a\"")),
        ("W/\"a\"", Some("W/\"a\"")),
        ("a", None),
    ];
    for (tag, expected) in cases {
        let mut parts = answer(200, &[("etag", tag)]);
        weaken(&mut parts.headers);
        let found = parts.headers.get(ETAG);
        assert_eq!(found.map(|v| v.to_str().unwrap()), expected, "{tag}");
    }
}

#[test]
fn caches_are_told_once() {
    let cases: &[(&[&str], &[&str])] = &[
        (&[], &["Accept-Encoding"]),
        (&["Origin"], &["Origin", "Accept-Encoding"]),
        (&["Origin, accept-encoding"], &["Origin, accept-encoding"]),
        (&["*"], &["*"]),
    ];
    for (values, expected) in cases {
        let headers: Vec<_> = values.iter().map(|v| ("vary", *v)).collect();
        let mut parts = answer(200, &headers);
        vary(&mut parts.headers);
        let found: Vec<_> = parts.headers.get_all(VARY).iter().collect();
        assert_eq!(found, *expected);
    }
}

/// What a body does next.
enum Step {
    Data(Vec<u8>),
    Wait,
    Trailers,
}

/// Frames of a body of these steps; what is waited for comes at the next poll.
fn frames(encoder: Encoder, steps: Vec<Step>) -> Vec<Poll<Option<Frame<Bytes>>>> {
    let mut steps = VecDeque::from(steps);
    let mut compress = Compress::new(encoder);
    let mut all = Vec::new();
    while !compress.is_over() {
        let polled = compress.poll(|| match steps.pop_front() {
            Some(Step::Data(data)) => {
                Poll::Ready(Some(Ok::<_, Infallible>(Frame::data(data.into()))))
            }
            Some(Step::Wait) => Poll::Pending,
            Some(Step::Trailers) => Poll::Ready(Some(Ok(Frame::trailers(HeaderMap::new())))),
            None => Poll::Ready(None),
        });
        all.push(polled.map(|frame| frame.map(Result::unwrap)));
    }
    let end = compress.poll(|| Poll::<Option<Result<_, Infallible>>>::Pending);
    assert!(matches!(end, Poll::Ready(None)));
    all
}

fn data(frames: &[Poll<Option<Frame<Bytes>>>]) -> Vec<u8> {
    let frames = frames.iter().filter_map(|polled| match polled {
        Poll::Ready(Some(frame)) => frame.data_ref(),
        _ => None,
    });
    frames.flat_map(|data| data.to_vec()).collect()
}

/// What makes each coding, and what reads it.
type Both = (fn() -> Encoder, fn(&[u8]) -> Box<dyn Read + '_>);

const CODINGS: [Both; 4] = [
    (|| gzip(1), gunzip),
    (|| gzip(9), gunzip),
    (|| brotli(0), unbrotli),
    (|| brotli(4), unbrotli),
];

fn gunzip(packed: &[u8]) -> Box<dyn Read + '_> {
    Box::new(GzDecoder::new(packed))
}

fn unbrotli(packed: &[u8]) -> Box<dyn Read + '_> {
    Box::new(Decompressor::new(packed, 512))
}

/// All that can be read of so much.
fn read(mut decoder: Box<dyn Read + '_>) -> Vec<u8> {
    let mut found = Vec::new();
    let mut buffer = [0; 512];
    while let Ok(count @ 1..) = decoder.read(&mut buffer) {
        found.extend_from_slice(&buffer[..count]);
    }
    found
}

#[test]
fn a_body_comes_out_as_it_went_in() {
    let noise: Vec<u8> = (0..200_000u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    for pieces in [
        vec![],
        vec![b"hello".to_vec()],
        vec![noise.clone(), vec![b'x'; 3_000_000], noise],
    ] {
        for (encoder, decoder) in CODINGS {
            let whole = pieces.concat();
            let steps = pieces.iter().cloned().map(Step::Data);
            let packed = data(&frames(encoder(), steps.collect()));
            let mut found = Vec::new();
            decoder(&packed)
                .read_to_end(&mut found)
                .expect("it is whole");
            assert!(found == whole, "{} bytes of {}", found.len(), whole.len());
        }
    }
}

#[test]
fn what_is_there_is_not_held_back() {
    for (encoder, decoder) in CODINGS {
        let frames = frames(
            encoder(),
            vec![
                Step::Data(b"one".to_vec()),
                Step::Wait,
                Step::Wait,
                Step::Data(b"two".to_vec()),
                Step::Wait,
                Step::Trailers,
            ],
        );
        let kinds: Vec<_> = frames
            .iter()
            .map(|polled| match polled {
                Poll::Pending => "waits",
                Poll::Ready(Some(frame)) if frame.is_data() => "data",
                Poll::Ready(Some(_)) => "trailers",
                Poll::Ready(None) => "end",
            })
            .collect();
        assert_eq!(kinds, ["data", "waits", "data", "data", "trailers"]);
        assert_eq!(read(decoder(&data(&frames[..1]))), b"one");
        assert_eq!(read(decoder(&data(&frames[..3]))), b"onetwo");
    }
}
