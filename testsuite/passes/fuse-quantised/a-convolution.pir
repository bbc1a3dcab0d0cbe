; run: fuse-quantised
; expect: metric integer-convolutions == 1
; expect: metric scales-folded == 1
; expect: ops conv-integer == 1
; expect: ops dequantize == 1
planish-ir 1
graph @"main"(v0 "x": u8[1,2,3,3], v1 "r": u8[1,3,3,3]) {
  v2 = const f32[] [0.05]
  v3 = const u8[] [100]
  v4 = dequantize{axis=1, block=0, to=f32} v0, v2, v3 : f32[1,2,3,3]
  v5 = const i8[3,2,1,1] [-67, 24, 12, -94, -33, 107]
  v6 = const f32[3] [0.01, 0.02, 0.03]
  v7 = dequantize{axis=0, block=0, to=f32} v5, v6 : f32[3,2,1,1]
  v8 = const f32[3] [1.0, -1.0, 0.5]
  v9 = conv{strides=[1, 1], dilations=[1, 1], pads=[0, 0, 0, 0], auto_pad=explicit, groups=1} v4, v7, v8 : f32[1,3,3,3] @"conv"
  v10 = const f32[] [0.25]
  v11 = dequantize{axis=1, block=0, to=f32} v1, v10, v3 : f32[1,3,3,3]
  v12 = binary{kind=add} v9, v11 : f32[1,3,3,3]
  v13 = unary{kind=relu} v12 : f32[1,3,3,3]
  v14 = const f32[] [0.5]
  v15 = quantize{axis=1, block=0, to=u8, saturate=true, precision=f32} v13, v14 : u8[1,3,3,3]
  return v15 "y"
}
