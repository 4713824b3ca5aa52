// SPDX-License-Identifier: Apache-2.0
// A function that ends in a call of another, which panics.
use std::io::Read;

#[inline(never)]
#[no_mangle]
pub extern "C" fn last(n: i64) -> i64 {
    if n > 99 {
        panic!("too many");
    }
    std::hint::black_box(n) + 1
}

#[inline(never)]
#[no_mangle]
pub extern "C" fn tail(n: i64) -> i64 {
    last(2 * n)
}

fn main() {
    println!("ready");
    let _ = std::io::stdin().read(&mut [0u8; 1]);
    std::hint::black_box(tail(std::env::args().count() as i64));
}
