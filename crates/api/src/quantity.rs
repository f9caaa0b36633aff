//! [`Quantity`]: a fixed-point amount such as `500m` or `1Gi`.
//! As upstream: `k8s.io/apimachinery/pkg/api/resource/quantity.go`.

use std::fmt;

/// Upstream's words for an amount that cannot be read.
const MALFORMED: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

const NANO: i128 = 1_000_000_000;
/// As upstream, nothing is larger than 2^63 - 1; larger amounts are capped.
const MAXIMUM: i128 = i64::MAX as i128 * NANO;

const DECIMAL: [(&str, i32); 10] = [
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];
const BINARY: [(&str, u32); 6] =
    [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];

/// Which family of suffixes an amount was written with; it is written back with the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Binary,
    Decimal,
    Exponent,
}

/// A fixed-point amount, exact to a billionth.
#[derive(Debug, Clone, Copy)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

impl Default for Quantity {
    fn default() -> Quantity {
        Quantity::ZERO
    }
}

impl Quantity {
    /// No amount.
    pub const ZERO: Quantity = Quantity { nanos: 0, format: Format::Decimal };

    /// Reads `500m`, `1.5Gi`, `1e3`. Finer than a billionth is rounded up; too large is capped.
    pub fn parse(text: &str) -> Result<Quantity, String> {
        let digits_end = text
            .char_indices()
            .find(|(at, c)| {
                !(c.is_ascii_digit() || *c == '.' || *at == 0 && (*c == '+' || *c == '-'))
            })
            .map_or(text.len(), |(at, _)| at);
        let (number, suffix) = text.split_at(digits_end);
        let (negative, number) = match number.as_bytes().first() {
            Some(b'-') => (true, &number[1..]),
            Some(b'+') => (false, &number[1..]),
            _ => (false, number),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') || number.len() > 100 {
            return Err(MALFORMED.to_owned());
        }
        let (format, base_two, ten) = scale(suffix).ok_or(MALFORMED)?;
        let magnitude = magnitude(whole, fraction, base_two, ten);
        Ok(Quantity { nanos: if negative { -magnitude } else { magnitude }, format })
    }

    /// An amount of whole units, written with decimal suffixes.
    pub fn from_units(units: i64) -> Quantity {
        Quantity { nanos: i128::from(units) * NANO, format: Format::Decimal }
    }

    /// An amount of bytes, written with binary suffixes.
    pub fn from_bytes(bytes: i64) -> Quantity {
        Quantity { nanos: i128::from(bytes) * NANO, format: Format::Binary }
    }

    /// An amount of thousandths.
    pub fn from_millis(millis: i64) -> Quantity {
        Quantity { nanos: i128::from(millis) * (NANO / 1000), format: Format::Decimal }
    }

    /// Whole units (bytes, cores), rounded up.
    pub fn value(self) -> i64 {
        saturate(round_up(self.nanos, NANO))
    }

    /// Thousandths, rounded up.
    pub fn milli_value(self) -> i64 {
        saturate(round_up(self.nanos, NANO / 1000))
    }

    /// The sum, in our family of suffixes.
    pub fn plus(self, other: Quantity) -> Quantity {
        Quantity { nanos: self.nanos.saturating_add(other.nanos).clamp(-MAXIMUM, MAXIMUM), ..self }
    }

    /// The difference, in our family of suffixes.
    pub fn minus(self, other: Quantity) -> Quantity {
        Quantity { nanos: self.nanos.saturating_sub(other.nanos).clamp(-MAXIMUM, MAXIMUM), ..self }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}
impl Eq for Quantity {}
impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

/// The canonical form: no fraction, the largest suffix that loses nothing.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.nanos % NANO == 0;
        if self.format == Format::Binary && whole && self.nanos.abs() >= 1024 * NANO {
            let (mut amount, mut suffix) = (self.nanos / NANO, "");
            for (name, _) in BINARY {
                if amount % 1024 != 0 {
                    break;
                }
                amount /= 1024;
                suffix = name;
            }
            return write!(f, "{amount}{suffix}");
        }
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let (mut amount, mut step) = (self.nanos, 0);
        while amount % 1000 == 0 && step + 1 < DECIMAL.len() {
            amount /= 1000;
            step += 1;
        }
        let (suffix, exponent) = DECIMAL[step];
        match self.format {
            Format::Exponent if exponent != 0 => write!(f, "{amount}e{exponent}"),
            _ => write!(f, "{amount}{suffix}"),
        }
    }
}

/// The family, the power of two and the power of ten that a suffix stands for.
fn scale(suffix: &str) -> Option<(Format, u32, i32)> {
    if let Some((_, bits)) = BINARY.iter().find(|(name, _)| *name == suffix) {
        return Some((Format::Binary, *bits, 0));
    }
    if let Some((_, exponent)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return Some((Format::Decimal, 0, *exponent));
    }
    let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    (-100..=100).contains(&exponent).then_some((Format::Exponent, 0, exponent))
}

/// The amount in billionths, rounded up and capped.
fn magnitude(whole: &str, fraction: &str, bits: u32, ten: i32) -> i128 {
    // digits * 10^(ten - fraction digits) * 2^bits, in units; all steps saturate, the cap follows.
    let digits: String = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    let Ok(mantissa) = (if digits.is_empty() { Ok(0) } else { digits.parse::<i128>() }) else {
        return MAXIMUM;
    };
    let fraction_digits = i32::try_from(fraction.len()).unwrap_or(i32::MAX);
    let exponent = ten.saturating_add(9).saturating_sub(fraction_digits);
    let Some(scaled) = mantissa.checked_mul(1i128 << bits) else { return MAXIMUM };
    let power = |n: i32| 10i128.checked_pow(n.unsigned_abs());
    let nanos = if exponent >= 0 {
        power(exponent).and_then(|p| scaled.checked_mul(p)).unwrap_or(if scaled == 0 {
            0
        } else {
            MAXIMUM
        })
    } else {
        match power(exponent) {
            Some(p) => round_up(scaled, p),
            None => i128::from(scaled > 0),
        }
    };
    nanos.min(MAXIMUM)
}

/// Division that rounds away from zero.
fn round_up(amount: i128, unit: i128) -> i128 {
    let quotient = amount / unit;
    if amount % unit == 0 { quotient } else { quotient + amount.signum() }
}

fn saturate(amount: i128) -> i64 {
    i64::try_from(amount).unwrap_or(if amount < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_written_in_canonical_form() {
        for (text, canonical) in [
            ("1000m", "1"),
            ("0.5", "500m"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("0", "0"),
            ("100", "100"),
            ("1e3", "1e3"),
            ("1000", "1k"),
            ("0.1m", "100u"),
            ("1Ki", "1Ki"),
            ("512", "512"),
            ("-1.5", "-1500m"),
            ("100Mi", "100Mi"),
            ("0.5Ki", "512"),
        ] {
            assert_eq!(Quantity::parse(text).unwrap().to_string(), canonical, "{text}");
        }
    }

    #[test]
    fn amounts_that_cannot_be_read_are_refused_in_upstreams_words() {
        for text in ["", "x", "1.2.3", "1Gib", "--1", "1e", "\u{1F600}", "1 Gi", "."] {
            assert_eq!(Quantity::parse(text).unwrap_err(), MALFORMED, "{text}");
        }
    }

    #[test]
    fn huge_and_tiny_amounts_are_capped_and_rounded() {
        assert_eq!(
            Quantity::parse("99999999999999999999999999999999999999999999E").unwrap().value(),
            i64::MAX
        );
        assert_eq!(Quantity::parse("1e-50").unwrap().value(), 1);
        assert_eq!(Quantity::parse("1Gi").unwrap().value(), 1 << 30);
        assert_eq!(Quantity::parse("250m").unwrap().milli_value(), 250);
        assert!(Quantity::parse("1").unwrap() > Quantity::parse("999m").unwrap());
    }
}
