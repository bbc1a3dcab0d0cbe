//! Generates the protobuf types from `proto/` without an installed `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let set = protox::compile(["onnx/onnx-data.proto"], ["proto"])?;
    prost_build::Config::new()
        // All byte fields are slices of the file they were decoded from.
        .bytes(["."])
        // Rarely present and large: kept out of line, so that an attribute costs what it holds.
        .boxed(".onnx.AttributeProto.g")
        .boxed(".onnx.AttributeProto.t")
        .boxed(".onnx.AttributeProto.sparse_tensor")
        .boxed(".onnx.AttributeProto.tp")
        .disable_comments(["."])
        .compile_fds(set)?;
    Ok(())
}
