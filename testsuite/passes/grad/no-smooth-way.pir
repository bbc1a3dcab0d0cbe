; run: grad{wrt=x}
; expect: metric gradients == 1
planish-ir 1
graph @"main"(v0 "x": f32[4], v1 "y": f32[4]) {
  v2 = unary{kind=round} v0 : f32[4]
  v3 = binary{kind=mul} v2, v1 : f32[4]
  return v3 "z"
}
