; run: insert-gates{quantile=0.5}
; expect: metric layers-gated == 2
; expect: remark gate-skipped first layer
; expect: remark gate-done fc3
; expect: ops gated-matmul == 2
planish-ir 1
graph @"main"(v0 "x": f32[1,300]) {
  v1 = const f32[300,256] splat 0x0000803c
  v2 = matmul{trans_a=false, trans_b=false} v0, v1 : f32[1,256] @"fc1"
  v3 = unary{kind=relu} v2 : f32[1,256]
  v4 = const f32[256,300] splat 0x0000003c
  v5 = matmul{trans_a=false, trans_b=false} v3, v4 : f32[1,300] @"fc2"
  v6 = binary{kind=add} v5, v0 : f32[1,300]
  v7 = const f32[256,300] splat 0x000080bc
  v8 = matmul{trans_a=false, trans_b=true} v6, v7 : f32[1,256] @"fc3"
  return v8 "y"
}
