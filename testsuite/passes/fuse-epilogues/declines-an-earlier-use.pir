; run: fuse-epilogues,eliminate-dead
; expect: ops fused <= 0
planish-ir 1
graph @"main"(v0 "x": f32[8]) {
  v1 = unary{kind=exp} v0 : f32[8]
  v2 = reduce{kind=sum, axes=[0], keepdims=true, noop_empty=true} v1 : f32[1]
  v3 = binary{kind=div} v1, v2 : f32[8]
  return v3 "y"
}
