; run: fuse-quantised
; expect: ops quantize == 1
planish-ir 1
graph @"main"(v0 "x": u8[1,2,4,4]) {
  v1 = const f32[] [0.05]
  v2 = const u8[] [100]
  v3 = dequantize{axis=1, block=0, to=f32} v0, v1, v2 : f32[1,2,4,4]
  v4 = const f32[] [0.1]
  v5 = quantize{axis=1, block=0, to=u8, saturate=true, precision=f32} v3, v4, v2 : u8[1,2,4,4]
  return v5 "y"
}
