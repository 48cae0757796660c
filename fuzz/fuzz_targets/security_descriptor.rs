//! Security descriptors, their text, and reparse buffers: what parses is written and parsed
//! again to the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use silo_winlayer::reparse::ReparsePoint;
use silo_winlayer::{SecurityDescriptor, descriptor, sddl};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(parsed) = SecurityDescriptor::parse(bytes) {
        let again = parsed.to_bytes();
        // Pieces that overlap may take more room apart.
        if again.len() <= descriptor::MAX_SIZE {
            let second = SecurityDescriptor::parse(&again).unwrap();
            assert_eq!(second.to_bytes(), again);
        }
        if let Ok(text) = sddl::format(&parsed)
            && let Ok(second) = sddl::parse(&text)
        {
            assert_eq!(sddl::format(&second).unwrap(), text);
        }
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(parsed) = sddl::parse(text)
    {
        let shown = sddl::format(&parsed).unwrap();
        let second = sddl::parse(&shown).unwrap();
        assert_eq!(sddl::format(&second).unwrap(), shown);
        let again = parsed.to_bytes();
        if again.len() <= descriptor::MAX_SIZE {
            assert_eq!(SecurityDescriptor::parse(&again).unwrap().to_bytes(), again);
        }
    }
    if let Ok(point) = ReparsePoint::parse(bytes)
        && let Ok(again) = point.to_bytes()
    {
        assert_eq!(ReparsePoint::parse(&again), Ok(point));
    }
});
