// SPDX-License-Identifier: Apache-2.0
// Code of many shapes: generics, trait objects, matches, panics that are caught.
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

trait Shape {
    fn area(&self) -> f64;
}

struct Square(f64);
struct Circle(f64);

impl Shape for Square {
    fn area(&self) -> f64 {
        self.0 * self.0
    }
}

impl Shape for Circle {
    fn area(&self) -> f64 {
        self.0 * self.0 * std::f64::consts::PI
    }
}

#[inline(never)]
fn name(n: u32) -> Result<String, std::num::ParseIntError> {
    Ok(match n % 7 {
        0 => "zero".to_string(),
        1 => format!("{n:>8}"),
        2 => "2".repeat(n as usize),
        3 => "x".parse::<i32>()?.to_string(),
        4 => name(n / 4)?,
        5 => n.to_string(),
        _ => String::new(),
    })
}

fn main() {
    let mut shapes: HashMap<String, Box<dyn Shape>> = HashMap::new();
    let mut sorted = BTreeMap::new();
    let mut out = String::new();
    for i in 0..200u32 {
        if let Ok(n) = name(i) {
            shapes.insert(n.clone(), if i % 2 == 0 { Box::new(Square(i.into())) } else { Box::new(Circle(i.into())) });
            sorted.insert(n, i);
        }
    }
    for (n, i) in &sorted {
        write!(out, "{n}{i}{}", shapes[n].area()).unwrap();
    }
    let caught = std::panic::catch_unwind(|| name(0).unwrap().as_bytes()[99]);
    println!("{} {}", out.len(), caught.is_err());
}
