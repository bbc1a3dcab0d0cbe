; run: insert-gates{kind=columns}
; expect: metric layers-gated == 1
; expect: ops gate == 1
; expect: remark gate-done hidden: of 6 columns of 4 weights
; expect: remark gate-skipped last: left alone, no mask multiplies what it gives
planish-ir 1
graph @"main"(v0 "x": f32[1,4], v1 "m": f32[1,6]) {
  v2 "w" = const f32[4,6] [-0.5, 0.2, -0.2, 0.5, 0.1, -0.3, 0.4, 0.0, -0.4, 0.3, -0.1, -0.5, 0.2, -0.2, 0.5, 0.1, -0.3, 0.4, 0.0, -0.4, 0.3, -0.1, -0.5, 0.2]
  v3 "b" = const f32[6] [-0.5, 0.2, -0.2, 0.5, 0.1, -0.3]
  v4 "out" = const f32[6,2] [-0.5, 0.2, -0.2, 0.5, 0.1, -0.3, 0.4, 0.0, -0.4, 0.3, -0.1, -0.5]
  v5 = const f32[] [0.5]
  v6 = matmul{trans_a=false, trans_b=false} v0, v2 : f32[1,6] @"hidden"
  v7 = binary{kind=add} v6, v3 : f32[1,6]
  v8 = binary{kind=greater} v1, v5 : bool[1,6]
  v9 = cast{to=f32, saturate=true} v8 : f32[1,6]
  v10 = binary{kind=mul} v7, v9 : f32[1,6] @"masked"
  v11 = matmul{trans_a=false, trans_b=false} v10, v4 : f32[1,2] @"last"
  return v11 "y"
}
