; run: prune-magnitude{threshold=0.15,first=true}
; expect: metric weights-zeroed == 1
planish-ir 1
graph @"main"(v0 "x": f32[3,2]) {
  v1 = const f32[2,2] [0.1, -3.0, 2.0, 0.2]
  v2 = matmul{trans_a=false, trans_b=false} v0, v1 : f32[3,2] @"fc"
  return v2 "y"
}
