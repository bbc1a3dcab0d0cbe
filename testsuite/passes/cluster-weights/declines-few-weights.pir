; run: cluster-weights{first=true}
; expect: ops gather == 0
; expect: metric bytes-huffman == 16
; expect: remark cluster-skipped fc: left alone, 3 weights are not zero, fewer than 64
planish-ir 1
graph @"main"(v0 "x": f32[1,2]) {
  v1 = const f32[2,2] [0.0, 1.0, 0.5, -2.0]
  v2 = matmul{trans_a=false, trans_b=false} v0, v1 : f32[1,2] @"fc"
  return v2 "y"
}
