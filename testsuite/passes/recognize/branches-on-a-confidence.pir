; run: recognize
; expect: metric whole-gate == 1
; expect: ops gate == 1
; expect: ops if == 1
planish-ir 1
graph @"main"(v0 "x": f32[1,3], v1 "flag": bool[]) {
  v2 = reduce{kind=max, axes=[1], keepdims=false, noop_empty=false} v0 : f32[1]
  v3 = const f32[] [0.5]
  v4 = binary{kind=greater} v2, v3 : bool[1]
  v5 = if v4, v0 (v6: f32[1,3]) {
    yield v6
  } (v7: f32[1,3]) {
    v8 = unary{kind=exp} v7 : f32[1,3]
    yield v8
  } : f32[1,3]
  v9 = if v1, v5 (v10: f32[1,3]) {
    yield v10
  } (v11: f32[1,3]) {
    v12 = unary{kind=neg} v11 : f32[1,3]
    yield v12
  } : f32[1,3]
  return v9 "y"
}
