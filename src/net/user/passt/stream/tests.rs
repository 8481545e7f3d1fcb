use proptest::prelude::*;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::*;

fn pair() -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap()
}

#[test]
fn no_frame_is_torn_however_little_room_there_is() {
    let (ours, theirs) = pair();
    rustix::net::sockopt::set_socket_send_buffer_size(&ours, 4096).unwrap();
    let desk = Desk::new().unwrap();
    let stream = Stream::new(ours, desk);
    let mut reader = Reader::new();
    let (mut sent, mut came) = (Vec::new(), Vec::new());
    for number in 0..2000u32 {
        let len = 14 + usize::try_from(number * 37 % 1500).unwrap();
        let frame: Vec<u8> = number.to_be_bytes().into_iter().cycle().take(len).collect();
        if stream.send(&frame) {
            sent.push(frame);
        }
        // Now and then it is read.
        if number % 7 == 0 {
            while let Next::Frame(range) = reader.next(&theirs) {
                came.push(reader.frame(range).to_vec());
            }
        }
    }
    for _ in 0..100 {
        stream.send_left();
        while let Next::Frame(range) = reader.next(&theirs) {
            came.push(reader.frame(range).to_vec());
        }
    }
    assert!(!stream.has_left());
    assert!(sent.len() < 2000, "some had no room");
    assert!(came == sent);
}

#[test]
fn what_is_no_stream_of_frames_ends_it() {
    for bytes in [&[0, 0, 0, 0][..], &[0, 0, 0, 13, 1], &[0xff, 0xff, 0xff, 0xff], &[0, 2, 0, 0]] {
        let (ours, theirs) = pair();
        rustix::net::send(&ours, bytes, SendFlags::empty()).unwrap();
        assert_eq!(Reader::new().next(&theirs), Next::Ended, "{bytes:?}");
    }
    let (ours, theirs) = pair();
    let mut reader = Reader::new();
    assert_eq!(reader.next(&theirs), Next::Nothing);
    rustix::net::send(&ours, &[0, 0, 0, 14, 1, 2], SendFlags::empty()).unwrap();
    assert_eq!(reader.next(&theirs), Next::Nothing);
    drop(ours);
    assert_eq!(reader.next(&theirs), Next::Ended);
}

#[test]
fn nothing_is_sent_to_who_is_gone() {
    let (ours, theirs) = pair();
    let stream = Stream::new(ours, Desk::new().unwrap());
    assert!(stream.is_open() && stream.send(&[1; 60]));
    drop(theirs);
    assert!(!stream.send(&[1; 60]) && !stream.is_open() && !stream.has_left());
}

proptest! {
    #[test]
    fn frames_come_whole_however_the_stream_is_cut(
        frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 14..300), 1..30),
        cuts in proptest::collection::vec(1usize..200, 1..10),
    ) {
        let (ours, theirs) = pair();
        let bytes: Vec<u8> = frames.iter().flat_map(|frame| [&u32::try_from(frame.len()).unwrap().to_be_bytes()[..], frame].concat()).collect();
        let (mut reader, mut came, mut rest, mut cuts) = (Reader::new(), Vec::new(), &bytes[..], cuts.iter().cycle());
        while !rest.is_empty() {
            let (now, later) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
            rustix::net::send(&ours, now, SendFlags::empty()).unwrap();
            rest = later;
            while let Next::Frame(range) = reader.next(&theirs) {
                came.push(reader.frame(range).to_vec());
            }
        }
        prop_assert_eq!(came, frames);
        prop_assert!(!reader.has_frame());
    }
}
