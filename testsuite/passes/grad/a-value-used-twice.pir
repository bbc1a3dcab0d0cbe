; run: grad
; expect: metric gradients == 1
planish-ir 1
sym n 1..
graph @"main"(v0 "x": f32[n,4], v1 "index": i64[2]) {
  v2 = unary{kind=exp} v0 : f32[n,4]
  v3 = binary{kind=mul} v2, v0 : f32[n,4]
  v4 = gather{axis=1} v3, v1 : f32[n,2]
  return v4 "y"
}
