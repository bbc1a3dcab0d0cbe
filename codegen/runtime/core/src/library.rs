//! The runtime library: functions that a plan calls for what is no kernel (strings, sequences, sorting).
//!
//! Numbers are stable within one version of the plan format.

macro_rules! functions {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        $($(#[$doc])* pub const $name: u16 = $code;)*

        /// The name of a function; `unknown` for a number that is none.
        pub fn name(func: u16) -> &'static str {
            match func { $($code => $text,)* _ => "unknown" }
        }

        /// The number of the function with this name.
        pub fn by_name(name: &str) -> Option<u16> {
            match name { $($text => Some($code),)* _ => None }
        }
    };
}

functions! {
    /// `(tensor slots...) -> sequence`.
    SEQ_CONSTRUCT = 1, "seq_construct";
}
