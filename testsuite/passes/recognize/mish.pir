; run: recognize,eliminate-dead
; expect: nodes == 1
planish-ir 1
graph @"main"(v0 "x": f32[2,3]) {
  v1 = unary{kind=softplus} v0 : f32[2,3]
  v2 = unary{kind=tanh} v1 : f32[2,3]
  v3 = binary{kind=mul} v0, v2 : f32[2,3]
  return v3 "y"
}
