//! What a program says about itself.
use crate::image::Image;
use crate::plan::{Expr, ExprId, Plan, Port, ValueType};
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Write;

/// The dims of a port for people, a number or an expression each.
fn dims(plan: &Plan, port: &Port) -> Vec<Result<i64, String>> {
    let one = |&e: &ExprId| match plan.exprs[e.index()] {
        Expr::Const(v) => Ok(v),
        _ => Err(plan.show_expr(e).to_string()),
    };
    port.dims.iter().flatten().map(one).collect()
}

fn dtype(port: &Port) -> String {
    match &port.ty {
        ValueType::Tensor(d) => d.name().to_owned(),
        other => other.to_string(),
    }
}

fn port_json(plan: &Plan, port: &Port) -> String {
    let shape = match port.dims {
        Some(_) => {
            list(dims(plan, port).into_iter().map(|d| d.map_or_else(|s| string(&s), |v| v.to_string())))
        }
        None => String::from("null"),
    };
    let (name, dtype) = (string(&port.name), string(&dtype(port)));
    format!("{{\"name\":{name},\"dtype\":{dtype},\"shape\":{shape}}}")
}

/// The describe object of the contract.
pub fn json(plan: &Plan, image: &Image<'_>) -> String {
    let ports = |of: &[Port]| list(of.iter().map(|p| port_json(plan, p)));
    let symbols = list(plan.symbols.iter().map(|s| {
        let max = if s.max == i64::MAX { String::from("null") } else { s.max.to_string() };
        let values = match s.values.is_empty() {
            true => String::new(),
            false => format!(",\"values\":{}", list(s.values.iter().map(|v| v.to_string()))),
        };
        format!("{{\"name\":{},\"min\":{},\"max\":{max}{values}}}", string(&s.name), s.min)
    }));
    let strings = |of: &[String]| list(of.iter().map(|s| string(s)));
    let cpu = list(image.variants().iter().map(|v| string(v.name())));
    let states = list(plan.states.iter().map(|&(o, i)| {
        let (o, i) = (&plan.outputs[o as usize].name, &plan.inputs[i as usize].name);
        format!("{{\"output\":{},\"input\":{}}}", string(o), string(i))
    }));
    let m = &plan.meta;
    format!(
        "{{\"schema\":\"planish.describe\",\"version\":1,\"name\":{},\"inputs\":{},\"outputs\":{},\"symbols\":{symbols},\
         \"states\":{states},\"cpu\":{cpu},\"precision\":{},\"model_hash\":{},\"recipe_hash\":{},\"tool\":{},\"lossy\":{},\
         \"weights_bytes\":{},\"code_bytes\":{}}}",
        string(&m.name),
        ports(&plan.inputs),
        ports(&plan.outputs),
        string(&m.precision),
        string(&m.model_hash),
        string(&m.recipe_hash),
        string(&m.tool),
        strings(&m.lossy),
        image.weights().map_or(0, <[u8]>::len),
        image.code_len(),
    )
}

/// The same for people.
pub fn text(plan: &Plan, image: &Image<'_>) -> String {
    let mut out = format!("model {}\n", plan.meta.name);
    for (what, ports) in [("input", &plan.inputs), ("output", &plan.outputs)] {
        for p in ports {
            let shape: Vec<String> =
                dims(plan, p).into_iter().map(|d| d.map_or_else(|s| s, |v| v.to_string())).collect();
            let shape = if p.dims.is_some() { format!("[{}]", shape.join(", ")) } else { String::new() };
            out += &format!("{what} {} {}{shape}\n", p.name, dtype(p));
        }
    }
    for s in plan.symbols.iter().filter(|s| !s.values.is_empty()) {
        out += &format!("compiled for {}\n", s.allowed());
    }
    let cpu: Vec<&str> = image.variants().iter().map(|v| v.name()).collect();
    let weights = image.weights().map_or(0, <[u8]>::len);
    out += &format!("code for {} ({} bytes), weights {weights} bytes\n", cpu.join(", "), image.code_len());
    for l in &plan.meta.lossy {
        out += &format!("lossy: {l}\n");
    }
    out += &format!("made by {}\n", plan.meta.tool);
    out
}

/// A string with quotes and escapes.
pub fn string(s: &str) -> String {
    let mut out = String::from("\"");
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c if (c as u32) < 0x20 || c == '\u{7f}' => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A list of values that are JSON already.
pub fn list(items: impl IntoIterator<Item = String>) -> String {
    format!("[{}]", items.into_iter().collect::<Vec<_>>().join(","))
}
