; run: fuse-quantised
; expect: metric quantisations-moved == 1
; expect: metric requantisations-removed == 1
; expect: ops quantize == 0
; expect: ops dequantize == 0
planish-ir 1
graph @"main"(v0 "x": u8[1,2,4,4]) {
  v1 = const f32[] [0.05]
  v2 = const u8[] [100]
  v3 = dequantize{axis=1, block=0, to=f32} v0, v1, v2 : f32[1,2,4,4]
  v4 = pool{kind=max, kernel=[2, 2], strides=[2, 2], dilations=[1, 1], pads=[0, 0, 0, 0], auto_pad=explicit, ceil_mode=false, count_include_pad=false, p=2, indices=none} v3 : f32[1,2,2,2]
  v5 = quantize{axis=1, block=0, to=u8, saturate=true, precision=f32} v4, v1, v2 : u8[1,2,2,2]
  return v5 "y"
}
