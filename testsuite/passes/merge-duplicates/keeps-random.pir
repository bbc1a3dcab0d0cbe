; run: merge-duplicates
; expect: ops random == 2
planish-ir 1
graph @"main"(v0 "x": f32[4]) {
  v1 = const i64[1] [4]
  v2 = random{dtype=f32, normal=false, a=0.0, b=1.0, seed=none} v1 : f32[4]
  v3 = random{dtype=f32, normal=false, a=0.0, b=1.0, seed=none} v1 : f32[4]
  v4 = unary{kind=is-nan} v2 : bool[4]
  v5 = unary{kind=is-nan} v3 : bool[4]
  v6 = binary{kind=or} v4, v5 : bool[4]
  return v6 "y"
}
