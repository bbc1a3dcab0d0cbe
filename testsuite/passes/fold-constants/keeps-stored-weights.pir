; run: fold-constants
; expect: ops dequantize == 2
planish-ir 1
graph @"main"(v0 "x": f32[2,3]) {
  v1 = const f32[] [0.05]
  v2 = const u8[] [100]
  v3 = quantize{axis=1, block=0, to=u8, saturate=true, precision=f32} v0, v1, v2 : u8[2,3]
  v4 = dequantize{axis=1, block=0, to=f32} v3, v1, v2 : f32[2,3]
  v5 = const i8[3,4] [-71, 67, -10, 116, -53, 110, -122, -21, 87, 107, 15, 109]
  v6 = const f32[4] [0.01, 0.02, 0.03, 0.04]
  v7 = dequantize{axis=1, block=0, to=f32} v5, v6 : f32[3,4]
  v8 = matmul{trans_a=false, trans_b=false} v4, v7 : f32[2,4] @"fc"
  return v8 "y"
}
