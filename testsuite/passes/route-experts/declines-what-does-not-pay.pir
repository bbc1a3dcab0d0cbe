; run: route-experts
; expect: ops gate == 0
; expect: remark gate-skipped experts: left alone, a speed-up of 0.00 is predicted, below 1.1
planish-ir 1
graph @"main"(v0 "x": f32[5,2]) {
  v1 = const f32[2,3] [-0.5, -0.1, 0.3, -0.4, 0.0, 0.4]
  v2 = const f32[2,6] [-0.5, -0.1, 0.3, -0.4, 0.0, 0.4, -0.3, 0.1, 0.5, -0.2, 0.2, -0.5]
  v3 = const f32[6] [-0.5, -0.1, 0.3, -0.4, 0.0, 0.4]
  v4 = const f32[6,2] [-0.5, -0.1, 0.3, -0.4, 0.0, 0.4, -0.3, 0.1, 0.5, -0.2, 0.2, -0.5]
  v5 = const f32[3,2] [-0.5, -0.1, 0.3, -0.4, 0.0, 0.4]
  v6 = const i64[1] [2]
  v7 = const f32[5,3] splat 0x00000000
  v8 = const i64[3] [-1, 3, 2]
  v9 = const i64[2] [-1, 6]
  v10 = matmul{trans_a=false, trans_b=false} v0, v1 : f32[5,3] @"scores"
  v13, v12 = top-k{axis=1, largest=true} v10, v6 : f32[5,2], i64[5,2]
  v11 = softmax{kind=softmax, axis=1} v13 : f32[5,2]
  v14 = scatter-elements{axis=1, reduction=none} v7, v12, v11 : f32[5,3]
  v15 = matmul{trans_a=false, trans_b=false} v0, v2 : f32[5,6]
  v16 = binary{kind=add} v15, v3 : f32[5,6]
  v17 = unary{kind=relu} v16 : f32[5,6]
  v18 = reshape{allow_zero=false} v17, v8 : f32[5,3,2]
  v19 = unsqueeze{axes=[2]} v14 : f32[5,3,1]
  v20 = binary{kind=mul} v18, v19 : f32[5,3,2]
  v21 = reshape{allow_zero=false} v20, v9 : f32[5,6]
  v22 = matmul{trans_a=false, trans_b=false} v21, v4 : f32[5,2] @"experts"
  v23 = matmul{trans_a=false, trans_b=false} v14, v5 : f32[5,2]
  v24 = binary{kind=add} v22, v23 : f32[5,2]
  return v24 "y"
}
