//! What a program says about itself.
use crate::json;
use planish_rt::image::Image;
use planish_rt::plan::{Expr, Plan, Port, ValueType};

/// The dims of a port for people, a number or an expression each.
fn dims(plan: &Plan, port: &Port) -> Vec<Result<i64, String>> {
    let one = |&e: &planish_rt::plan::ExprId| match plan.exprs[e.index()] {
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
        Some(_) => json::list(
            dims(plan, port).into_iter().map(|d| d.map_or_else(|s| json::string(&s), |v| v.to_string())),
        ),
        None => String::from("null"),
    };
    let (name, dtype) = (json::string(&port.name), json::string(&dtype(port)));
    format!("{{\"name\":{name},\"dtype\":{dtype},\"shape\":{shape}}}")
}

/// The describe object of the contract.
pub fn describe_json(plan: &Plan, image: &Image<'_>) -> String {
    let ports = |list: &[Port]| json::list(list.iter().map(|p| port_json(plan, p)));
    let symbols = json::list(plan.symbols.iter().map(|s| {
        let max = if s.max == i64::MAX { String::from("null") } else { s.max.to_string() };
        format!("{{\"name\":{},\"min\":{},\"max\":{max}}}", json::string(&s.name), s.min)
    }));
    let strings = |list: &[String]| json::list(list.iter().map(|s| json::string(s)));
    let cpu = json::list(image.variants().iter().map(|v| json::string(v.name())));
    let states = json::list(plan.states.iter().map(|&(o, i)| {
        let (o, i) = (&plan.outputs[o as usize].name, &plan.inputs[i as usize].name);
        format!("{{\"output\":{},\"input\":{}}}", json::string(o), json::string(i))
    }));
    let m = &plan.meta;
    format!(
        "{{\"schema\":\"planish.describe\",\"version\":1,\"name\":{},\"inputs\":{},\"outputs\":{},\"symbols\":{symbols},\
         \"states\":{states},\"cpu\":{cpu},\"precision\":{},\"model_hash\":{},\"recipe_hash\":{},\"tool\":{},\"lossy\":{},\
         \"weights_bytes\":{},\"code_bytes\":{}}}",
        json::string(&m.name),
        ports(&plan.inputs),
        ports(&plan.outputs),
        json::string(&m.precision),
        json::string(&m.model_hash),
        json::string(&m.recipe_hash),
        json::string(&m.tool),
        strings(&m.lossy),
        image.weights().map_or(0, <[u8]>::len),
        image.code_len(),
    )
}

/// The same for people.
pub fn describe_text(plan: &Plan, image: &Image<'_>) -> String {
    let mut out = format!("model {}\n", plan.meta.name);
    for (what, ports) in [("input", &plan.inputs), ("output", &plan.outputs)] {
        for p in ports {
            let shape: Vec<String> =
                dims(plan, p).into_iter().map(|d| d.map_or_else(|s| s, |v| v.to_string())).collect();
            let shape = if p.dims.is_some() { format!("[{}]", shape.join(", ")) } else { String::new() };
            out += &format!("{what} {} {}{shape}\n", p.name, dtype(p));
        }
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
