; run: simplify-shapes,eliminate-dead
; expect: nodes <= 1
planish-ir 1
sym N 0..
graph @"main"(v0 "x": f32[N,2,3]) {
  v1 = const i64[2] [0, -1]
  v2 = reshape{allow_zero=false} v0, v1 : f32[N,6]
  v3 = unsqueeze{axes=[2]} v2 : f32[N,6,1]
  return v3 "y"
}
