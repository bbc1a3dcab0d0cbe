; run: simplify-shapes,simplify-shapes,eliminate-dead
; expect: nodes == 0
planish-ir 1
graph @"main"(v0 "x": f32[2,3]) {
  v1 = transpose{perm=[1, 0]} v0 : f32[3,2]
  v2 = transpose{perm=[1, 0]} v1 : f32[2,3]
  return v2 "y"
}
