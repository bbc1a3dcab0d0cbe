; run: fold-constants{tables=false},eliminate-dead
; expect: ops concat == 1
; expect: ops gather == 1
planish-ir 1
graph @"main"(v0 "x": f32[2,3]) {
  v1 = const f32[1] [0.0]
  v2 "w.centroids" = const f32[2] [-1.0, 2.0]
  v3 = concat{axis=0} v1, v2 : f32[3]
  v4 = const i32[3,2] [0, 1, 2, 0, 2, 1]
  v5 = gather{axis=0} v3, v4 : f32[3,2]
  v6 = matmul{trans_a=false, trans_b=false} v0, v5 : f32[2,2]
  return v6 "y"
}
