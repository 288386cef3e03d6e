//! Fixed-width base 36 (digits, then lower-case letters), for tokens that people read aloud and paste.

const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// The big-endian number in `bytes`, left-padded with `0` to `width` characters.
/// `width` must be large enough for the number: 25 for 16 bytes, 50 for 32.
pub fn encode(bytes: &[u8], width: usize) -> String {
    let mut number = bytes.to_vec();
    let mut digits = vec![b'0'; width];
    for digit in digits.iter_mut().rev() {
        let mut rest = 0u32;
        for byte in &mut number {
            let value = rest << 8 | u32::from(*byte);
            *byte = (value / 36) as u8;
            rest = value % 36;
        }
        *digit = DIGITS[rest as usize];
    }
    debug_assert!(number.iter().all(|byte| *byte == 0), "width is too small");
    digits.into_iter().map(char::from).collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    Character(char),
    TooLarge,
}

/// The number as `N` big-endian bytes.
pub fn decode<const N: usize>(text: &str) -> Result<[u8; N], DecodeError> {
    let mut number = [0u8; N];
    for character in text.chars() {
        let digit = match character {
            '0'..='9' | 'a'..='z' => character.to_digit(36).expect("matched as base 36"),
            _ => return Err(DecodeError::Character(character)),
        };
        let mut carry = digit;
        for byte in number.iter_mut().rev() {
            let value = u32::from(*byte) * 36 + carry;
            *byte = value as u8;
            carry = value >> 8;
        }
        if carry != 0 {
            return Err(DecodeError::TooLarge);
        }
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_survives() {
        for bytes in [[0u8; 16], [255; 16], *b"\x00\x01skep token\xff\x80\x7f\x00"] {
            let text = encode(&bytes, 25);
            assert_eq!(text.len(), 25);
            assert_eq!(decode::<16>(&text), Ok(bytes));
        }
        assert_eq!(encode(&[255; 32], 50).len(), 50);
        assert_eq!(decode::<32>(&encode(&[255; 32], 50)), Ok([255; 32]));
    }

    #[test]
    fn what_is_no_number_is_refused() {
        assert_eq!(decode::<16>("00A"), Err(DecodeError::Character('A')));
        assert_eq!(decode::<16>("é"), Err(DecodeError::Character('é')));
        assert_eq!(decode::<16>(&"z".repeat(25)), Err(DecodeError::TooLarge));
    }
}
