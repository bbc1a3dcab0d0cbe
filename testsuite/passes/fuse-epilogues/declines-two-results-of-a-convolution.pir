; run: fuse-epilogues,eliminate-dead
; expect: ops fused <= 1
planish-ir 1
graph @"main"(v0 "x": f32[1,2,3,3], v1 "skip": f32[1,2,3,3]) {
  v2 = const f32[2,2,1,1] [1.0, 2.0, 3.0, 4.0]
  v3 = conv{strides=[1, 1], dilations=[1, 1], pads=[0, 0, 0, 0], auto_pad=explicit, groups=1} v0, v2 : f32[1,2,3,3]
  v4 = binary{kind=add} v3, v1 : f32[1,2,3,3]
  v5 = unary{kind=relu} v4 : f32[1,2,3,3]
  return v5 "y", v4 "sum"
}
