; run: insert-gates{quantile=0,block=4,first=true}
; expect: metric layers-gated == 1
; expect: remark gate-done where it has at most 4 rows
planish-ir 1
sym N 1..
graph @"main"(v0 "x": f32[N,64]) {
  v1 = const f32[64] splat 0x000080bf
  v2 = const f32[64] splat 0x00000000
  v3 = binary{kind=mul} v0, v2 : f32[N,64]
  v4 = const f32[64,1024] splat 0x0000803f
  v5 = matmul{trans_a=false, trans_b=false} v3, v4 : f32[N,1024] @"zeros"
  v6 = const f32[1024,8] splat 0x0000803f
  v7 = matmul{trans_a=false, trans_b=false} v5, v6 : f32[N,8] @"narrow"
  return v7 "y"
}
