; run: sink-transposes,fold-constants,eliminate-dead,sink-transposes
; expect: ops transpose == 0
; expect: metric transposes-moved >= 3
planish-ir 1
graph @"main"(v0 "x": f32[1,2,3,4]) {
  v1 = const f32[2,2,1,1] [1.0, 2.0, 3.0, 4.0]
  v2 = conv{strides=[1, 1], dilations=[1, 1], pads=[0, 0, 0, 0], auto_pad=explicit, groups=1} v0, v1 : f32[1,2,3,4]
  v3 = transpose{perm=[0, 2, 3, 1]} v2 : f32[1,3,4,2]
  v4 = const f32[2] [0.5, 2.0]
  v5 = binary{kind=add} v3, v4 : f32[1,3,4,2]
  v6 = unary{kind=relu} v5 : f32[1,3,4,2]
  v7 = transpose{perm=[0, 3, 1, 2]} v6 : f32[1,2,3,4]
  v8 = conv{strides=[1, 1], dilations=[1, 1], pads=[0, 0, 0, 0], auto_pad=explicit, groups=1} v7, v1 : f32[1,2,3,4]
  return v8 "y"
}
